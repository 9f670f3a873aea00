"""Accuracy that each student gains on each class, sorted."""

from collections.abc import Sequence

import numpy as np

from keras_distill.analysis.report import page
from keras_distill.analysis.report.measured import TEACHER, Measured
from keras_distill.analysis.report.panels import COLORS, panel

# Classes in a plot, and in a table; of more, those that change most in each direction.
_DRAWN, _LISTED = 24, 100


def sorted_gains(gains: np.ndarray) -> np.ndarray:
    """Return the classes that have samples, from the largest gain to the smallest."""
    order = np.argsort(-gains, kind="stable")
    return order[np.isfinite(gains[order])]


def baseline(found: Measured) -> str:
    """Return the name of the model that gains are counted from."""
    return found.students[0] if len(found.students) > 1 else TEACHER


def gain_panels(found: Measured, names: Sequence[str]) -> str:
    """Return a plot and a table of the sorted gains of each student."""
    accuracies, base = found.accuracies(), baseline(found)
    counts = np.bincount(found.samples.labels, minlength=len(accuracies[base]))
    figures, tables = [], []
    for student in found.students:
        if student == base:
            continue
        gains = 100 * (accuracies[student] - accuracies[base])
        order = sorted_gains(gains)
        shown = _ends(order, _DRAWN)
        labels = [str(names[k]) for k in shown]
        title = f"{student} over {base}, percentage points"
        figures.append((title, _bars(labels, gains[shown])))
        rows = [
            {
                "class": str(names[k]),
                "samples": int(counts[k]),
                f"{base} %": f"{100 * accuracies[base][k]:.2f}",
                f"{student} %": f"{100 * accuracies[student][k]:.2f}",
                "gain": f"{gains[k]:+.2f}",
            }
            for k in _ends(order, _LISTED)
        ]
        tables.append(page.details(f"Numbers of {student}", page.table(rows)))
    return page.panels(figures) + "".join(tables)


def _ends(order: np.ndarray, count: int) -> np.ndarray:
    """Return the first and the last classes of an order, `count` in all."""
    if len(order) <= count:
        return order
    return np.concatenate([order[: count // 2], order[-(count // 2) :]])


def _bars(labels: Sequence[str], gains: np.ndarray) -> str:
    def draw(axes):
        shades = [COLORS["gain"] if x >= 0 else COLORS["loss"] for x in gains]
        positions = np.arange(len(gains))
        axes.barh(positions, gains, color=shades, height=0.7)
        axes.axvline(0, color=COLORS["soft"], linewidth=0.8, marker="")
        axes.set_yticks(positions, [label[:24] for label in labels])
        axes.set_ylim(len(gains) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.locator_params(axis="x", nbins=6)
        if not gains.any():
            axes.set_xlim(-1, 1)

    alt = "; ".join(f"{x}: {gain:+.2f}" for x, gain in zip(labels, gains, strict=True))
    return panel(draw, alt, height=0.5 + 0.19 * len(gains))
