"""Figures of many runs, kept on disk as they are made."""

from __future__ import annotations

import json
import os
import pathlib
import statistics
from collections.abc import Callable, Mapping


class Runs:
    """Figures by name and seed, in a file that outlives the script.

    An experiment is many trainings over several seeds. Each figure is written down as
    soon as it is known, so a script that died goes on where it stopped, and one that is
    called again with more seeds or methods only runs what is missing.

    Args:
        file: path of a JSON file. It is read if it exists; its folder is made.
        settings: what the figures hold for (data set, epochs, ...), as JSON can hold
            it; kept in the file. Default: nothing.

    Raises:
        ValueError: the file was made with other settings.

    Example:
        >>> runs = kd.analysis.Runs("runs/errors.json", {"epochs": 20})
        >>> for seed in range(3):
        ...     runs.once("alone", seed, lambda: errors(train(seed, epochs=20)))
        >>> runs.shown("alone")
        '10.67 ± 1.70'
    """

    def __init__(
        self, file: str | os.PathLike, settings: Mapping[str, object] | None = None
    ):
        self.file = pathlib.Path(file)
        self.settings = _plain(dict(settings or {}))
        self._figures: dict[str, dict[str, object]] = {}
        if self.file.exists():
            found = json.loads(self.file.read_text())
            if found["settings"] != self.settings:
                raise ValueError(
                    f"The figures in '{self.file}' were made with the settings "
                    f"{found['settings']}, not {self.settings}; give another file, or "
                    "move this one away."
                )
            self._figures = found["figures"]

    def once(self, name: str, seed: int, run: Callable[[], object]):
        """Give the figure of a run, which is only made if it is not known yet.

        Args:
            name: what was run, as in `"student alone"`.
            seed: of the run.
            run: makes the figure: a number, or whatever else JSON can hold; NumPy's
                numbers and arrays too.

        Returns:
            The figure, as JSON gives it back.

        Raises:
            TypeError: JSON can't hold the figure.
        """
        figures = self._figures.setdefault(name, {})
        if str(seed) not in figures:
            figures[str(seed)] = _plain(run())
            self._write()
        return figures[str(seed)]

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"settings": self.settings, "figures": self._figures})
        unfinished = self.file.with_name(self.file.name + ".unfinished")
        unfinished.write_text(text)
        os.replace(unfinished, self.file)

    @property
    def names(self) -> list[str]:
        """Give the names that have figures, in the order in which they came."""
        return [name for name, figures in self._figures.items() if figures]

    def __getitem__(self, name: str) -> list:
        """Give the figures of a name, in the order of the seeds."""
        figures = self._figures[name]
        return [figures[seed] for seed in sorted(figures, key=int)]

    def shown(self, name: str, digits: int = 2, *, of: Callable | None = None) -> str:
        """Give mean and deviation of a name's figures as text.

        Args:
            name: that `once` was called with.
            digits: after the point. Default 2.
            of: from a figure to the number that is meant, where it holds several.

        Returns:
            `mean ± deviation`, the deviation that of the figures themselves (divided
            by their number); for one seed the figure alone.
        """
        figures = [figure if of is None else of(figure) for figure in self[name]]
        mean = f"{statistics.fmean(figures):.{digits}f}"
        if len(figures) == 1:
            return mean
        return f"{mean} ± {statistics.pstdev(figures):.{digits}f}"


def _plain(value):
    """Give a value as JSON gives it back."""
    return json.loads(json.dumps(value, default=_of_numpy))


def _of_numpy(value):
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        "A figure is a number, a text, or lists and dicts of them; got "
        f"{type(value).__name__}: {value!r}."
    )
