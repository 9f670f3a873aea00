"""Class correlation of the teacher and of each student, in the same order of classes."""

from collections.abc import Sequence

import numpy as np

from keras_distill.analysis.class_correlation import ClassCorrelation, class_correlation
from keras_distill.analysis.report import page
from keras_distill.analysis.report.measured import Measured
from keras_distill.analysis.report.panels import panel
from keras_distill.analysis.report.thumbnails import shrunk

# Largest side of a matrix in the page, and of one whose classes are named.
_SIDE, _NAMED = 128, 20


def class_panels(found: Measured, names: Sequence[str], temperature: float) -> str:
    """Return the class correlations, or the reason why they are undefined."""
    groups, figures = None, []
    try:
        for name, one in found.outputs.items():
            (result,) = class_correlation(
                one, found.samples, [temperature], groups=groups
            )
            # Those of the teacher, which is the first.
            groups = groups or result.groups
            figures.append(_figure(name, result, names))
    except ValueError as error:
        return f"<p>{page.escape(error)}</p>"
    return page.panels(figures)


def _figure(name: str, result: ClassCorrelation, names) -> tuple[str, str]:
    """Return the caption and the plot of one model."""
    title = name
    if not np.isnan(result.blocks):
        title += f": {result.blocks:.2f} higher within groups than between them"
    order = result.order
    matrix = shrunk(result.matrix[np.ix_(order, order)], _SIDE)

    def draw(axes):
        axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
        axes.grid(visible=False)
        shown = [str(names[k])[:12] for k in order]
        if len(order) <= _NAMED:
            axes.set_xticks(range(len(order)), shown, rotation=90)
            axes.set_yticks(range(len(order)), shown)
        else:
            axes.set_xticks([])
            axes.set_yticks([])

    return title, panel(draw, f"Class correlation of {title}", 3.2, 3.2)
