"""Report on a teacher and its students: a table and a self-contained HTML page."""

import base64
import dataclasses
import html
import io
import os
import pathlib
from collections.abc import Mapping

import keras

from keras_distill._backend.number_checks import check_above
from keras_distill.analysis.agreement import (
    agreement,
    by_class,
    calibration,
    plot_by_class,
    plot_reliability,
)
from keras_distill.analysis.attention import attention_maps, plot_attention_maps
from keras_distill.analysis.class_correlation import (
    class_correlation,
    plot_class_correlation,
)
from keras_distill.analysis.cost import cost
from keras_distill.analysis.predictions import logits_of
from keras_distill.analysis.table import cell_text
from keras_distill.analysis.wrong import wrong
from keras_distill.taps import Tap

_STYLE = (
    "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.3em .8em;text-align:right;"
    "border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}"
)


def report(
    students: Mapping[str, keras.Model],
    teacher: keras.Model,
    data,
    *,
    file: str | os.PathLike | None = None,
    tap: str | Tap | None = None,
    temperature: float = 4.0,
    batch_size: int = 1000,
) -> list[dict]:
    """Compare students with their teacher in a table and on a page of figures.

    The table has accuracy, agreement with the teacher, divergence from it, calibration
    error, parameters and multiplications. The page adds the reliability diagram, accuracy
    gains by class, the class correlation of each model and, for a tapped layer, attention
    maps of the first images. It is one HTML file with embedded images.

    Args:
        students: models that return logits `(B, K)`, by name; the first is the baseline
            of the gains by class.
        teacher: returns logits `(B, K)`.
        data: `kd.data.Samples`, or any object with `images` and `labels`.
        file: path of the page. Default: no page.
        tap: a layer with outputs of shape `(B, h, w, c)` in all models. Default: no
            attention maps.
        temperature: of the class correlation. Default 4.
        batch_size: Default 1000.

    Returns:
        The rows of the table, for `kd.analysis.table`.

    Raises:
        TypeError: `students` is not a mapping.
        ValueError: there are no students, one is named "teacher", the models do not
            return logits of the same classes, or the tapped layer returns no maps.
        ImportError: `file` is given and matplotlib is not installed.

    Example:
        >>> students = {"alone": alone, "distilled": distilled}
        >>> rows = kd.analysis.report(students, teacher, digits.test, file="report.html")
        >>> print(kd.analysis.table(rows))
    """
    if not isinstance(students, Mapping):
        raise TypeError(
            "Expected `students` to be a dict of models by name, before `teacher`; got "
            f"{type(students).__name__}."
        )
    if not students or "teacher" in students:
        raise ValueError(
            f"Expected one or more students, none named 'teacher'; got {list(students)}."
        )
    check_above(0, temperature=temperature)
    models = {"teacher": teacher, **students}
    outputs = {name: _Stored(model, data, batch_size) for name, model in models.items()}
    calibrations = {name: calibration(one, data) for name, one in outputs.items()}
    rows = [_row(name, models, outputs, calibrations, data) for name in models]
    if file is not None:
        figures = _figures(outputs, calibrations, data, temperature)
        if tap is not None:
            images = data.images[:8]
            maps = {name: attention_maps(x, images, tap) for name, x in models.items()}
            figures["Attention maps"] = plot_attention_maps(images, maps)
        pathlib.Path(file).write_text(_page(rows, figures, data), "utf-8")
    return rows


class _Stored:
    """Stand-in for a model that returns its stored logits."""

    def __init__(self, model, data, batch_size):
        self.logits = logits_of(model, data, batch_size)
        self.name = model.name

    def predict(self, images, **options):
        del images, options
        return self.logits


def _row(name, models, outputs, calibrations, data) -> dict:
    fidelity = agreement(outputs[name], teacher=outputs["teacher"], samples=data)
    costs = cost(models[name], data.images[:1], repeats=0)
    return {
        "model": name,
        "accuracy %": f"{100 - 100 * wrong(outputs[name], data).mean():.2f}",
        "agreement %": f"{100 * fidelity.top:.2f}",
        "agreement where teacher is wrong %": f"{100 * fidelity.top_where_wrong:.2f}",
        "divergence": f"{fidelity.divergence:.4f}",
        "calibration error": f"{calibrations[name].error:.4f}",
        "parameters": costs.parameters,
        "multiplications": costs.multiplications,
    }


def _figures(outputs, calibrations, data, temperature) -> dict:
    """Return figures by title, or the reason why one could not be drawn."""
    first = list(outputs)[1]
    figures = {
        "Calibration": plot_reliability(calibrations),
        "Accuracy gains by class": plot_by_class(by_class(outputs, data), first),
    }
    try:
        groups, correlations = None, []
        for name, one in outputs.items():
            (result,) = class_correlation(one, data, [temperature], groups=groups)
            groups = groups or result.groups
            title = f"{name}, {result.title}"
            correlations.append(dataclasses.replace(result, title=title))
        figures["Class correlation"] = plot_class_correlation(correlations)
    except ValueError as error:
        figures["Class correlation"] = str(error)
    return figures


def _page(rows, figures, data) -> str:
    titles = list(rows[0])
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    parts = [f"<table><tr>{head}</tr>"]
    for row in rows:
        cells = (html.escape(cell_text(row[title])) for title in titles)
        parts.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    parts.append("</table>")
    for title, figure in figures.items():
        parts.append(f"<h2>{html.escape(title)}</h2>{_as_html(figure)}")
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Distillation</title>"
        f"<style>{_STYLE}</style><h1>A teacher and its students</h1>"
        f"<p>{len(data.labels):,} samples. Agreement with the teacher, and divergence "
        "from it in nats.</p>" + "".join(parts) + "</html>"
    )


def _as_html(figure) -> str:
    if isinstance(figure, str):
        return f"<p>{html.escape(figure)}</p>"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<img alt='' src='data:image/png;base64,{data}'>"
