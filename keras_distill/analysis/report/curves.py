"""Training curves, and how hard each part of the loss pulled."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_distill.analysis.report import page
from keras_distill.analysis.report.panels import MARKERS, MARKS, color, panel

_POINTS = 200
_PULL, _COSINE, _VALIDATION = "pull/", "cosine/", "val_"

# Values by name; the numbers of epochs or steps are those of `x`.
Curves = dict[str, np.ndarray]


def as_curves(name: str, history) -> Curves:
    """Return a history as arrays by name; stages follow each other.

    Args:
        name: of the model, for an error.
        history: a `keras.callbacks.History`, a `kd.Generation`, a dict of lists by name,
            or a list of these.
    """
    history = getattr(history, "history", history)
    stages = history if isinstance(history, (list, tuple)) else [history]
    stages = [getattr(stage, "history", stage) for stage in stages]
    if not stages or not all(map(_is_history, stages)):
        raise TypeError(
            f"Expected histories['{name}'] to be the history that fit returns, a dict of "
            f"lists of numbers by name, or a list of these; got {history!r:.200}."
        )
    names = dict.fromkeys(key for stage in stages for key in stage)
    lengths = [max(map(len, stage.values()), default=0) for stage in stages]
    pairs = list(zip(stages, lengths, strict=True))
    return {
        key: np.concatenate([_padded(s.get(key), n) for s, n in pairs]) for key in names
    }


def as_pulls(name: str, pulls) -> Curves:
    """Return the measurements of a `kd.callbacks.Pulls` as arrays by name."""
    rows = getattr(pulls, "history", pulls)
    if not isinstance(rows, Sequence) or not all("step" in row for row in rows):
        raise TypeError(
            f"Expected pulls['{name}'] to be a kd.callbacks.Pulls that was passed to fit; "
            f"got {pulls!r:.200}."
        )
    names = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, np.nan) for row in rows]) for key in names}


def training_panels(curves: Mapping[str, Curves], numbers: Mapping[str, int]) -> str:
    """Return a plot of each logged quantity, with a line for each model."""
    quantities = dict.fromkeys(
        key.removeprefix(_VALIDATION)
        for one in curves.values()
        for key in one
        if not key.startswith((_PULL, _COSINE))
    )
    # The total first, then its parts and the metrics.
    ordered = sorted(
        quantities, key=lambda key: (key != "loss", not key.endswith("loss"))
    )

    def draw(axes, key):
        for name, one in curves.items():
            for prefix, style in (("", "-"), (_VALIDATION, "--")):
                if prefix + key in one:
                    y = one[prefix + key]
                    _line(axes, np.arange(1, len(y) + 1), y, numbers[name], style)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)

    legend = page.key({name: numbers[name] for name in curves}, MARKS)
    figures = [
        (key, panel(lambda axes, k=key: draw(axes, k), _ends(key, curves)))
        for key in ordered
    ]
    return legend + page.panels(figures)


def pull_panels(curves: Mapping[str, Curves], pulls: Mapping[str, Curves]) -> str:
    """Return plots of each model's gradient norms and cosines, with a line for each part.

    Those of `pulls` are drawn by step; others are taken from the curves, by epoch.
    """
    found, parts = {}, {}
    for name in dict.fromkeys([*curves, *pulls]):
        one = pulls.get(name) or curves[name]
        if any(key.startswith(_PULL) for key in one):
            found[name] = one
            for key in one:
                if key.startswith(_PULL):
                    parts.setdefault(key.removeprefix(_PULL), len(parts) + 1)
    if not found:
        return ""

    def draw(axes, one, kind):
        x = one.get("step")
        for part, number in parts.items():
            if kind + part in one:
                y = one[kind + part]
                _line(axes, np.arange(1, len(y) + 1) if x is None else x, y, number)
        axes.set_xlabel("epoch" if x is None else "step")
        axes.locator_params(axis="x", integer=True)
        if kind == _PULL:
            axes.set_yscale("log")

    figures = []
    for name, one in found.items():
        for kind, title in (
            (_PULL, "gradient norm"),
            (_COSINE, "cosine to the labels"),
        ):
            if any(key.startswith(kind) for key in one):
                svg = panel(
                    lambda axes, o=one, k=kind: draw(axes, o, k),
                    "; ".join(_change(k, one[k]) for k in one if k.startswith(kind)),
                )
                figures.append((f"{name}: {title}", svg))
    return page.key(parts, MARKS) + page.panels(figures)


def _is_history(value) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(x, (list, tuple, np.ndarray)) for x in value.values()
    )


def _padded(values, length: int) -> np.ndarray:
    """Return values as an array of a length, with NaN where there are none."""
    values = np.asarray([] if values is None else values, "float64")
    return np.append(values, np.full(length - len(values), np.nan))


def _line(axes, x, y, number: int, style: str = "-") -> None:
    chosen = np.unique(np.linspace(0, len(y) - 1, min(len(y), _POINTS)).astype(int))
    axes.plot(
        x[chosen],
        y[chosen],
        style,
        color=color(number),
        marker=MARKERS[number % len(MARKERS)],
        markevery=max(1, len(chosen) // 6),
    )


def _ends(key: str, curves: Mapping[str, Curves]) -> str:
    """Return a quantity's first and last values of each model, as the alternative text."""
    return "; ".join(
        _change(f"{key}, {n}", x[key]) for n, x in curves.items() if key in x
    )


def _change(name: str, values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return f"{name}: no finite values"
    return f"{name}: from {values[0]:.4g} to {values[-1]:.4g}"
