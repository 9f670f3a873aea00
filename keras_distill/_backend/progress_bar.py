"""A progress bar on one line, with the time that is left."""

import shutil
import sys
import time
from collections.abc import Mapping

_WIDTH = 20
# Seconds between two updates: of a line that is rewritten, and of lines in a log.
_REWRITE, _LOG = 0.2, 30.0


class ProgressBar:
    """A bar of a known number of units, on one line.

        Stage 2 of 2: soft_target  7/9 epochs ━━━━━━━━━━━━━━━━────  12 s left - loss: 0.3

    On a terminal and in a notebook the line is rewritten; elsewhere, as in a log file,
    a line is printed at each milestone, and every 30 seconds between them. The time left
    is estimated from the units done since the start, without those that were skipped.

    Args:
        total: number of units.
        unit: name of the units, in the plural.
        verbose: 0 for silent, 1 for a bar, 2 for one line at each milestone.
    """

    def __init__(self, total: int, unit: str, verbose: int = 1):
        self.total, self.unit, self.verbose = total, unit, verbose
        self.done = self.skipped = 0.0
        self.title = ""
        self._start, self._last, self._length = time.monotonic(), -_LOG, 0
        self._ended = False
        self._rewrites = verbose == 1 and _can_rewrite()

    def skip(self, count: float) -> None:
        """Advance past units that took no time, such as those of an earlier run."""
        self.done, self.skipped = self.done + count, self.skipped + count

    def update(
        self, done: float, values: Mapping | None = None, *, milestone: bool = True
    ) -> None:
        """Show that `done` units are complete.

        Args:
            done: number of complete units; a fraction counts for the time left.
            values: numbers to show behind the bar, by name.
            milestone: whether a log gets a line of this update in any case.
        """
        self.done = max(done, self.done)
        if not self.verbose or self._ended or (self.verbose == 2 and not milestone):
            return
        now = time.monotonic()
        is_due = now - self._last >= (_REWRITE if self._rewrites else _LOG)
        if not milestone and not is_due:
            return
        self._last, self._ended = now, self.done >= self.total
        self._print(self._line(values or {}))

    def finish(self) -> None:
        """Complete the bar."""
        self.update(self.total)

    def seconds_left(self) -> float | None:
        """Return the estimated seconds until the end; None before the first unit."""
        worked = self.done - self.skipped
        if worked <= 0:
            return None
        passed = time.monotonic() - self._start
        return passed / worked * (self.total - self.done)

    def _line(self, values: Mapping) -> str:
        full = round(_WIDTH * min(1.0, self.done / max(1, self.total)))
        bar = "━" * full + "─" * (_WIDTH - full)
        parts = [f"{int(self.done):,}/{self.total:,} {self.unit}", bar, self._time()]
        line = "  ".join(part for part in (self.title, *parts) if part)
        return line + "".join(f" - {name}: {x:.4g}" for name, x in values.items())

    def _time(self) -> str:
        if self.done >= self.total:
            return f"{duration(time.monotonic() - self._start)} in all"
        seconds = self.seconds_left()
        return "" if seconds is None else f"{duration(seconds)} left"

    def _print(self, line: str) -> None:
        if self._rewrites:
            # A line longer than the terminal could not be rewritten.
            line = line[: _columns() - 1]
            padded = line.ljust(self._length)
            self._length = len(line)
            print(f"\r{padded}", end="\n" if self._ended else "", flush=True)
        else:
            print(line, flush=True)


def duration(seconds: float) -> str:
    """Return a duration as text, such as `12 s`, `3 min 20 s` or `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _can_rewrite() -> bool:
    is_terminal = getattr(sys.stdout, "isatty", None)
    return bool(is_terminal and is_terminal()) or "ipykernel" in sys.modules


def _columns() -> int:
    return shutil.get_terminal_size((100, 24)).columns
