"""One page about a teacher and its students, that opens without a network."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import os
import pathlib
from collections.abc import Mapping

import keras

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
from keras_distill.analysis.table import table
from keras_distill.analysis.wrong import wrong
from keras_distill.taps import Tap

_STYLE = (
    "body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.3em .8em;text-align:right;"
    "border-bottom:1px solid #ccc}td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}"
)


def report(
    teacher: keras.Model,
    students: Mapping[str, keras.Model],
    data,
    *,
    file: str | os.PathLike | None = None,
    tap: str | Tap | None = None,
    temperature: float = 4.0,
    batch_size: int = 1000,
) -> list[dict]:
    """Compare students with their teacher: a table, and a page of figures.

    The table has accuracy, agreement with the teacher, divergence from it, calibration
    error, parameters and multiplications. The page adds gains by class, the reliability
    diagram, the class correlation of each model and, of a tapped layer, where each looks
    in the first images; it is one HTML file, its pictures inside, which opens without a
    network.

    Args:
        teacher: gives logits `(B, K)`.
        students: by name; the first is what gains by class are measured against.
        data: with `images` and `labels`, as `kd.data.Samples`.
        file: path of the page. Default: no page.
        tap: of a layer that gives maps in all models. Default: no attention maps.
        temperature: of the class correlation. Default 4.
        batch_size: Default 1000.

    Returns:
        The rows of the table, for `kd.analysis.table`.

    Raises:
        ValueError: no students, one named teacher, models that do not give logits of
            the same classes, or a tap of a layer that is not there or gives no maps.
        ImportError: a page is asked for and matplotlib is not installed.

    Example:
        >>> students = {"alone": alone, "distilled": distilled}
        >>> rows = kd.analysis.report(teacher, students, digits.test, file="report.html")
        >>> print(kd.analysis.table(rows))
    """
    if not students or "teacher" in students:
        raise ValueError(
            f"students are one or more by name, none 'teacher'; got {list(students)}."
        )
    models = {"teacher": teacher, **students}
    asked = {name: _Asked(model, data, batch_size) for name, model in models.items()}
    sure = {name: calibration(one, data) for name, one in asked.items()}
    rows = [
        _row(name, asked, model, sure[name], data) for name, model in models.items()
    ]
    if file is not None:
        figures = _figures(asked, sure, data, temperature)
        if tap is not None:
            figures["Where they look"] = _attention(models, data.images[:8], tap)
        pathlib.Path(file).write_text(_page(rows, figures, data), "utf-8")
    return rows


class _Asked:
    """A model that was asked once: it predicts what it said of the samples."""

    def __init__(self, model, data, batch_size):
        self.logits = logits_of(model, data, batch_size)
        self.name = model.name

    def predict(self, images, **how):
        del images, how
        return self.logits


def _row(name, asked, model, sure, data) -> dict:
    same = agreement(asked["teacher"], asked[name], data)
    costs = cost(model, data.images[:1], repeats=0)
    return {
        "model": name,
        "accuracy %": f"{100 - 100 * wrong(asked[name], data).mean():.2f}",
        "agrees %": f"{100 * same.top:.2f}",
        "agrees where wrong %": f"{100 * same.top_where_wrong:.2f}",
        "divergence": f"{same.divergence:.4f}",
        "calibration error": f"{sure.error:.4f}",
        "parameters": costs.parameters,
        "multiplications": costs.multiplications,
    }


def _figures(asked, sure, data, temperature) -> dict:
    """Give what is drawn, by title; what can't be is said in its place."""
    first = list(asked)[1]
    found = {
        "How sure, and how often right": plot_reliability(sure),
        "Gains by class": plot_by_class(by_class(asked, data), against=first),
    }
    try:
        groups, drawn = None, []
        for name, one in asked.items():
            (found_one,) = class_correlation(one, data, [temperature], groups=groups)
            groups = groups or found_one.groups
            title = f"{name}, {found_one.title}"
            drawn.append(dataclasses.replace(found_one, title=title))
        found["Which classes go together"] = plot_class_correlation(drawn)
    except ValueError as error:
        found["Which classes go together"] = str(error)
    return found


def _attention(models, images, tap):
    """Draw the attention maps of all models on some images."""
    maps = {name: attention_maps(model, images, tap) for name, model in models.items()}
    return plot_attention_maps(images, maps)


def _page(rows, figures, data) -> str:
    titles = list(rows[0])
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row[title])}</td>" for title in titles) + "</tr>"
        for row in rows
    )
    parts = [f"<table><tr>{head}</tr>{body}</table>"]
    for title, figure in figures.items():
        shown = (
            f"<p>{html.escape(figure)}</p>"
            if isinstance(figure, str)
            else _image(figure)
        )
        parts.append(f"<h2>{html.escape(title)}</h2>{shown}")
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Distillation</title>"
        f"<style>{_STYLE}</style><h1>A teacher and its students</h1>"
        f"<p>{len(data.labels):,} samples. Agreement, and divergence in nats, with the "
        "teacher.</p>" + "".join(parts) + "</html>"
    )


def _cell(value) -> str:
    # The same cells as in the text.
    return html.escape(table([{"": value}]).splitlines()[-1].strip("| "))


def _image(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<img alt='' src='data:image/png;base64,{data}'>"
