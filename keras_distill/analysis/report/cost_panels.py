"""Accuracy against cost, reliability, and the means of a comparison."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_distill.analysis.report import page
from keras_distill.analysis.report.measured import Measured
from keras_distill.analysis.report.panels import COLORS, MARKERS, MARKS, color, panel


def cost_panels(found: Measured, numbers: Mapping[str, int]) -> str:
    """Return plots of accuracy against parameters, multiplications and latency."""
    costs = {
        "parameters": {n: x.parameters for n, x in found.costs.items()},
        "multiplications per sample": {
            n: x.multiplications for n, x in found.costs.items()
        },
        "milliseconds per sample": {
            n: 1e3 * (x.seconds_per_image or 0.0) for n, x in found.costs.items()
        },
    }
    scores = {name: found.score(name) for name in found.outputs}

    def draw(axes, by_name):
        for name, x in by_name.items():
            mark = MARKERS[numbers[name] % len(MARKERS)]
            axes.plot(x, scores[name], mark, color=color(numbers[name]), markersize=8)
        axes.set_ylabel(found.measure)
        axes.margins(0.15)
        _scale(axes, list(by_name.values()))

    figures = []
    for title, values in costs.items():
        by_name = {name: x for name, x in values.items() if x > 0}
        if by_name:
            points = (f"{n}: {scores[n]:.2f} at {x:,.4g}" for n, x in by_name.items())
            alt = f"{found.measure} against {title}. {'; '.join(points)}"
            svg = panel(lambda axes, b=by_name: draw(axes, b), alt)
            figures.append((f"{found.measure} against {title}", svg))
    return page.key(numbers, MARKS) + page.panels(figures)


def reliability_panels(found: Measured, numbers: Mapping[str, int]) -> str:
    """Return the reliability diagram, and how often each confidence occurs."""
    calibrations = found.calibrations()

    def accuracy(axes):
        axes.plot([0, 1], [0, 1], color=COLORS["soft"], linewidth=0.8, marker="")
        for name, one in calibrations.items():
            full = one.counts > 0
            number = numbers[name]
            mark = MARKERS[number % len(MARKERS)]
            x, y = one.confidence[full], one.accuracy[full]
            axes.plot(x, y, color=color(number), marker=mark)
        axes.set(xlabel="confidence", ylabel="accuracy")

    def share(axes):
        for name, one in calibrations.items():
            edges = np.linspace(0, 1, len(one.counts) + 1)
            values = 100 * one.counts / one.counts.sum()
            axes.stairs(values, edges, color=color(numbers[name]), linewidth=1.4)
        axes.set(xlabel="confidence", ylabel="samples, %")

    errors = "; ".join(f"{n}: error {x.error:.4f}" for n, x in calibrations.items())
    sure = (
        f"{n}: mean confidence {np.nansum(x.confidence * x.counts) / x.counts.sum():.3f}"
        for n, x in calibrations.items()
    )
    figures = [
        ("Accuracy by confidence; the line is perfect calibration", accuracy, errors),
        ("How often each confidence occurs", share, "; ".join(sure)),
    ]
    drawn = [(title, panel(draw, alt)) for title, draw, alt in figures]
    return page.key(numbers, MARKS) + page.panels(drawn)


def comparison_panels(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the table of a comparison, and a plot of its means and deviations."""
    rows = list(rows)
    if not rows or not all({"method", "mean"} <= set(row) for row in rows):
        raise ValueError(
            "Expected `comparison` to be the rows that kd.analysis.compare returns, each "
            f"with 'method' and 'mean'; got {rows!r:.200}."
        )
    names = [str(row["method"]) for row in rows]
    means = [float(row["mean"]) for row in rows]
    deviations = [float(row.get("std") or 0.0) for row in rows]
    positions = np.arange(len(rows))

    def draw(axes):
        for position, mean, deviation in zip(positions, means, deviations, strict=True):
            shade = color(0 if names[position] == "teacher" else 1)
            axes.errorbar(
                mean, position, xerr=deviation, fmt="o", color=shade, capsize=3
            )
        axes.set_yticks(positions, names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("mean, and standard deviation over seeds")

    alt = "; ".join(
        f"{name}: {mean:g} ± {deviation:g}"
        for name, mean, deviation in zip(names, means, deviations, strict=True)
    )
    svg = panel(draw, alt, height=1.0 + 0.22 * len(rows))
    return page.table(rows) + page.panels([("Means over seeds", svg)])


def _scale(axes, values: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic if the values differ by much."""
    from matplotlib import ticker

    if max(values) < 3 * min(values):
        axes.set_xlim(0, 1.1 * max(values))
    else:
        axes.set_xscale("log")
        wide = max(values) > 100 * min(values)
        subs = (1.0,) if wide else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.xaxis.set_major_formatter(lambda x, _: _short(x))


def _short(x: float) -> str:
    """Return a number as text, such as 0.02, 500, 20k or 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"
