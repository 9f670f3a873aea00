"""The report: a table of teacher and students, and a page."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_distill._backend.number_checks import check_above, check_integers
from keras_distill._backend.optional import require
from keras_distill.analysis.report.curves import as_curves, as_pulls
from keras_distill.analysis.report.measured import TEACHER, measure
from keras_distill.analysis.report.sections import Sections
from keras_distill.taps import Tap


def report(
    students: Mapping[str, keras.Model],
    teacher: keras.Model,
    data,
    *,
    file: str | os.PathLike | None = None,
    histories: Mapping[str, object] | None = None,
    pulls: Mapping[str, object] | None = None,
    comparison: Sequence[Mapping[str, object]] | None = None,
    names: Sequence[str] | None = None,
    as_text: Callable | None = None,
    tap: str | Tap | None = None,
    temperature: float = 4.0,
    repeats: int = 10,
    batch_size: int = 1000,
) -> list[dict]:
    """Compare students with their teacher in a table and on a page of figures.

    The table has accuracy, agreement with the teacher, divergence from it, calibration
    error, parameters, multiplications and latency. The page adds

    - accuracy against parameters, multiplications and latency;
    - training curves of each part of the loss, and how hard it pulled;
    - accuracy gains by class, sorted;
    - reliability diagrams;
    - the samples that each student lost and won compared with the teacher;
    - the class correlation of each model;
    - for a tapped layer, attention maps of the first images.

    It is one HTML file below 2 MB that opens offline, on a phone, and in dark mode.

    Args:
        students: models that return logits `(B, K)`, by name; the first is the baseline
            of the gains by class. A single one is compared with the teacher.
        teacher: returns logits `(B, K)`.
        data: `kd.data.Samples`, or any object with `images` and `labels`. Without labels
            (None), students are compared with the teacher's predictions alone.
        file: path of the page. Default: no page.
        histories: what `fit` returned, by the name of the model: a
            `keras.callbacks.History`, a dict of lists, or a list of these for stages.
            Gradient norms are drawn from them if `kd.callbacks.Pulls` was among the
            callbacks. Default: no training curves.
        pulls: `kd.callbacks.Pulls` by the name of the model, to draw gradient norms by
            step. Default: those in the histories.
        comparison: rows of `kd.analysis.compare`, as a table and a plot. Default: none.
        names: names of the classes. Default: their indices.
        as_text: function from one input to the text that is shown for it, such as a
            tokenizer's `detokenize`. Default: images are shown as thumbnails, others by
            their values.
        tap: a layer with outputs of shape `(B, h, w, c)` in all models. Default: no
            attention maps.
        temperature: of the class correlation. Default 4.
        repeats: number of timed runs of each model on 64 samples; 0 for no latency.
            Default 10.
        batch_size: Default 1000.

    Returns:
        The rows of the table, for `kd.analysis.table`.

    Raises:
        TypeError: `students` is not a mapping, or a history is none.
        ValueError: there are no students, one is named "teacher", the models do not
            return logits of the same classes, `names` has another length, or the tapped
            layer returns no maps.
        ImportError: `file` is given, and matplotlib or scipy is not installed.

    Example:
        >>> history = distiller.fit(train, epochs=2, verbose=0)
        >>> rows = kd.analysis.report(
        ...     {"distilled": student}, teacher, digits.test, file="report.html",
        ...     histories={"distilled": history})
        >>> print(kd.analysis.table(rows))
    """
    _check_students(students)
    check_above(0, temperature=temperature)
    check_integers(0, repeats=repeats)
    curves = {name: as_curves(name, x) for name, x in (histories or {}).items()}
    steps = {name: as_pulls(name, x) for name, x in (pulls or {}).items()}
    if file is not None:
        _check_packages()
    models = {TEACHER: teacher, **students}
    found = measure(models, data, batch_size, repeats)
    rows = found.rows()
    if file is None:
        return rows
    sections = Sections(
        models=models,
        found=found,
        names=_class_names(names, found.outputs[TEACHER].logits.shape[-1]),
        ids=getattr(data, "ids", None),
        temperature=temperature,
        as_text=as_text,
        tap=tap,
    )
    page = sections.page(rows, curves, steps, comparison)
    pathlib.Path(file).write_text(page, "utf-8")
    return rows


def _check_packages() -> None:
    """Import what figures need before the models run, which may take long."""
    for module in ("matplotlib", "scipy.cluster.hierarchy"):
        require(module, "The page of kd.analysis.report")


def _check_students(students) -> None:
    if not isinstance(students, Mapping):
        raise TypeError(
            "Expected `students` to be a dict of models by name, before `teacher`; got "
            f"{type(students).__name__}."
        )
    if not students or TEACHER in students:
        raise ValueError(
            f"Expected one or more students, none named 'teacher'; got {list(students)}."
        )


def _class_names(names, classes: int) -> list[str]:
    if names is None:
        return [str(k) for k in range(classes)]
    names = [str(name) for name in names]
    if len(names) != classes:
        raise ValueError(
            f"Expected `names` to have a name for each of the {classes} classes; got "
            f"{len(names)}."
        )
    return names
