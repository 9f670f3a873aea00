"""What a paper claims, how it is tried, and what the cells say of it."""

import dataclasses
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence

SHOWS, SHOWS_NOT, NOT_TRIED = "shows", "does not", "not tried"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One row of a protocol is better than another.

    It shows if the means differ as claimed by more than the larger of the two standard
    deviations over seeds. A claim of no loss shows unless they differ the other way by
    more than that.

    Args:
        text: the claim, as a sentence.
        better, worse: the two rows.
        measure: name of the number that is compared.
        larger: whether larger is better. Default True.
        no_loss: whether the claim is that the better row is no worse. Default False.
    """

    text: str
    better: str
    worse: str
    measure: str
    larger: bool = True
    no_loss: bool = False

    def verdict(self, found: Mapping[str, Sequence[float]], seeds: int) -> str:
        """Return whether the claim shows.

        Args:
            found: values of the measure, by row.
            seeds: number that each of the two rows must have.
        """
        rows = [found.get(row, ()) for row in (self.better, self.worse)]
        if min(map(len, rows)) < seeds:
            return NOT_TRIED
        better, worse = map(statistics.fmean, rows)
        gain = better - worse if self.larger else worse - better
        deviation = max(map(statistics.pstdev, rows))
        shows = gain >= -deviation if self.no_loss else gain > deviation
        return SHOWS if shows else SHOWS_NOT


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Rows that are trained for the claims of a paper, a cell for each row and seed.

    Args:
        name: of the page in `docs/results` and of the cells.
        title: of the page.
        about: data, networks and settings, and what stands in for the paper's; Markdown.
        rows: names in the order of the table.
        train: function of a row, a seed and a folder for what is shared between rows,
            such as teachers; returns numbers by name, the measures.
        claims: of the paper.
        settings: what the figures depend on; it is written into each cell.
        paper: the paper's figures by row, as text. Default: none.
        seeds: number of them. Default 3.
        digits: decimals of the measures. Default 2.
        plot: function of the cells that are there and of the file of a picture to save.
            Default: none.
    """

    name: str
    title: str
    about: str
    rows: Sequence[str]
    train: Callable[[str, int, pathlib.Path], Mapping[str, float]]
    claims: Sequence[Claim]
    settings: Mapping[str, object]
    paper: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds: int = 3
    digits: int = 2
    plot: Callable[[Sequence[Mapping], pathlib.Path], None] | None = None


def by_row(found: Sequence[Mapping], measure: str) -> dict[str, list[float]]:
    """Return the values of a measure in cells by row, in the order of the seeds."""
    values = {}
    for cell in sorted(found, key=lambda cell: cell["seed"]):
        if measure in cell["measures"]:
            values.setdefault(cell["method"], []).append(cell["measures"][measure])
    return values
