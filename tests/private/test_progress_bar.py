"""The progress bar: what is left by hand-counted units, one line on a terminal."""

import re

import pytest

from keras_distill._backend import progress_bar
from keras_distill._backend.progress_bar import ProgressBar, duration


class Clock:
    """Stands in for `time`, and is set by hand."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_bar, "time", clock)
    return clock


def test_the_time_left_is_that_of_the_units_done_so_far(clock):
    bar = ProgressBar(10, "epochs", 0)
    assert bar.seconds_left() is None
    clock.now = 6.0
    bar.update(3)
    # 2 s for each of 3; 7 are left.
    assert bar.seconds_left() == 14.0
    bar.skip(4)
    # Of an earlier run: they do not make this one faster.
    assert bar.done == 7 and bar.seconds_left() == 6.0
    clock.now = 7.0
    bar.update(7.5, milestone=False)
    assert bar.seconds_left() == pytest.approx(7.0 / 3.5 * 2.5)


def test_a_log_gets_a_line_for_each_milestone_and_every_30_seconds(clock, capsys):
    bar = ProgressBar(4, "epochs", 1)
    bar.title = "Stage 1 of 1"
    for second in range(81):
        clock.now = second
        bar.update(second / 40, milestone=second == 40)
    clock.now = 160
    bar.update(4, {"loss": 0.25})
    bar.finish()
    lines = capsys.readouterr().out.splitlines()
    counts = [re.search(r"(\d)/4 epochs", line).group(1) for line in lines]
    # At 0, 30, 40 and 70 s, and at the end.
    assert counts == ["0", "0", "1", "1", "4"]
    assert lines[2].endswith("1/4 epochs  ━━━━━───────────────  2 min 0 s left")
    assert lines[-1].endswith(f"{'━' * 20}  2 min 40 s in all - loss: 0.25")
    assert all(line.startswith("Stage 1 of 1  ") for line in lines)


def test_a_terminal_has_one_line(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress_bar, "_can_rewrite", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    bar = ProgressBar(2, "rows", 1)
    for second in (1, 2):
        clock.now = second
        bar.update(second, {"a long name of a metric": 1.0})
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and output.endswith("\n")
    first, last = output.strip("\r\n").split("\r")
    assert len(first) == len(last) == 49 and "1 s left" in first


def test_verbose_0_is_silent_and_2_has_no_line_between_milestones(clock, capsys):
    for verbose, lines in ((0, 0), (2, 2)):
        bar = ProgressBar(2, "epochs", verbose)
        for done in (0.5, 1, 1.5, 2):
            clock.now += 40
            bar.update(done, milestone=done in (1, 2))
        assert len(capsys.readouterr().out.splitlines()) == lines


@pytest.mark.parametrize(
    "seconds, text",
    [
        *[(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s")],
        *[(3599.7, "1 h 0 min"), (7500, "2 h 5 min"), (360000, "100 h 0 min")],
    ],
)
def test_durations_are_text(seconds, text):
    assert duration(seconds) == text
