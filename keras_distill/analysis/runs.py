"""Results of many runs, saved to disk as they finish."""

import json
import os
import pathlib
import statistics
from collections.abc import Callable, Mapping

from keras_distill._backend import files


class Runs:
    """Results by name and seed, stored in a JSON file.

    Each result is written as soon as its run finishes, so an interrupted script resumes
    where it stopped, and a script that is run again with more seeds or methods only runs
    what is missing.

    Args:
        file: path of a JSON file. It is read if it exists; its folder is created.
        settings: settings of the experiment (data set, epochs, ...), JSON-serializable;
            stored in the file. Default: none.

    Raises:
        ValueError: the file has different settings.

    Example:
        >>> runs = kd.analysis.Runs("runs/errors.json", {"epochs": 20})
        >>> for seed in range(3):
        ...     runs.once("alone", seed, lambda: errors(trained(seed, epochs=20)))
        >>> runs.summary("alone")
        '10.67 ± 1.70'
    """

    def __init__(
        self, file: str | os.PathLike, settings: Mapping[str, object] | None = None
    ):
        self.file = pathlib.Path(file)
        self.settings = _plain(dict(settings or {}))
        self._figures: dict[str, dict[str, object]] = {}
        if self.file.exists():
            remedy = "Put a copy of it in its place, or remove it to run all again."
            stored = files.read_json(self.file, remedy)
            if not isinstance(stored, dict) or not {"settings", "figures"} <= set(
                stored
            ):
                raise ValueError(f"'{self.file}' has no results of Runs. {remedy}")
            if stored["settings"] != self.settings:
                raise ValueError(
                    f"The results in '{self.file}' are for the settings "
                    f"{stored['settings']}, not {self.settings}. Use another file, or "
                    "remove this one."
                )
            self._figures = stored["figures"]

    def once(self, name: str, seed: int, run: Callable[[], object]):
        """Return the result of a run, and run it only if it is not stored yet.

        Args:
            name: name of the run, such as `"student alone"`.
            seed: seed of the run.
            run: function that returns the result: a number, or any other value that is
                JSON-serializable; NumPy numbers and arrays are converted.

        Returns:
            The result, as read back from JSON.

        Raises:
            TypeError: the result is not JSON-serializable.
        """
        figures = self._figures.setdefault(name, {})
        if str(seed) not in figures:
            figures[str(seed)] = _plain(run())
            text = json.dumps({"settings": self.settings, "figures": self._figures})
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with files.write_then_rename(self.file) as beside:
                beside.write_text(text)
        return figures[str(seed)]

    @property
    def names(self) -> list[str]:
        """Return the names that have results, in the order they were added."""
        return [name for name, figures in self._figures.items() if figures]

    def __getitem__(self, name: str) -> list:
        """Return the results of a name, in the order of the seeds."""
        figures = self._figures[name]
        return [figures[seed] for seed in sorted(figures, key=int)]

    def summary(self, name: str, digits: int = 2, *, of: Callable | None = None) -> str:
        """Return mean and standard deviation of a name's results as text.

        Args:
            name: the name passed to `once`.
            digits: number of decimals. Default 2.
            of: function from a result to a number, for results that are not numbers.

        Returns:
            `mean ± standard deviation`, the latter of the population (divided by the
            number of results); for one seed, the result alone.
        """
        figures = [figure if of is None else of(figure) for figure in self[name]]
        mean = f"{statistics.fmean(figures):.{digits}f}"
        if len(figures) == 1:
            return mean
        return f"{mean} ± {statistics.pstdev(figures):.{digits}f}"


def _plain(value):
    """Return a value as read back from JSON."""
    return json.loads(json.dumps(value, default=_from_numpy))


def _from_numpy(value):
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        "Expected a result of numbers, strings, lists and dicts; got "
        f"{type(value).__name__}: {value!r}."
    )
