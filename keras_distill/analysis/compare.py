"""Methods side by side, over seeds, each finished cell kept on disk."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_distill.analysis.runs import Runs
from keras_distill.distillers import Distiller

Stages = Mapping | Sequence[Mapping]
Method = Stages | Callable[[keras.Model], Stages] | None


def compare(
    methods: Mapping[str, Method],
    *,
    student: Callable[[int], keras.Model],
    teacher: Callable[[int], keras.Model],
    fit: Callable,
    judge: Callable[[keras.Model], float],
    runs: Runs,
    seeds: int = 3,
) -> list[dict]:
    """Train one student by several methods from the same starts, and judge each.

    A figure of a method says little without those of others on the same nets and data.
    Every method and seed is a cell; a cell that `runs` already has is not run again, so
    that a comparison goes on where it stopped and may grow.

    Args:
        methods: by name, None for the student alone, or keyword arguments of
            `kd.Distiller`, as `{"terms": [...], "label_weight": 0.1}`. A list of such
            dicts are stages that are trained one after another; an empty one is the
            student alone. Or a function that makes either out of the teacher. A
            `"teacher"` among the arguments takes the place of the common one.
        student: from a seed to an untrained student.
        teacher: from a seed to its trained teacher, or ensemble.
        fit: called as `fit(model, seed, callbacks)`, compiles and trains the student or
            a distiller; the callbacks are to be handed to `model.fit`. Without labels
            to weigh (`label_weight=0`) it gets a distiller whose `label_source` is 0.
        judge: from a trained student, or the teacher, to its figure, on data that
            nothing was chosen on.
        runs: keeps the cells.
        seeds: 0 to `seeds - 1`. Default 3.

    Returns:
        A row a method for `kd.analysis.table`: mean and deviation of the figures, the
        parameters of the student, without its adapters, and the median seconds of a
        step relative to the first method's. The first row is the teacher's.

    Raises:
        ValueError: there are no methods, one is called "teacher", or one that is no
            function holds an adapter layer, which would go on from cell to cell.

    Example:
        >>> rows = kd.analysis.compare(
        ...     {"alone": None, "KD": {"terms": [kd.Term(loss)]}},
        ...     student=make_student, teacher=load_teacher, fit=fit, judge=accuracy,
        ...     runs=kd.analysis.Runs("runs/accuracies.json"))
        >>> print(kd.analysis.table(rows))
    """
    if not methods or "teacher" in methods:
        raise ValueError(
            "methods are one or more, by names other than 'teacher', which is the row of "
            f"the teacher itself; got {list(methods)}."
        )
    _check_start(methods)
    for seed in range(seeds):
        known = teacher(seed)
        runs.once("teacher", seed, lambda known=known: _judged(known, judge))
        for name, method in methods.items():
            cell = _Cell(method, student, known, fit, judge, seed)
            found = runs.once(name, seed, cell.run)
            print(f"{name}, seed {seed}: {found['figure']:.4g}", flush=True)
    return _rows(runs, methods, seeds)


def _check_start(methods) -> None:
    """Refuse layers that a cell would train and the next one find trained."""
    for name, method in methods.items():
        stages = [method] if isinstance(method, Mapping) else method
        for stage in () if stages is None or callable(stages) else stages:
            for term in stage.get("terms", ()):
                if any(isinstance(layer, keras.Layer) for layer in term.adapters):
                    raise ValueError(
                        f"The method '{name}' holds an adapter layer, in the term "
                        f"'{term.name}', that each cell would go on training. Give a "
                        "function from the teacher that makes the terms anew."
                    )


class _Cell:
    """One method and one seed."""

    def __init__(self, method, student, teacher, fit, judge, seed):
        self.method, self.student, self.teacher = method, student, teacher
        self.fit, self.judge, self.seed = fit, judge, seed

    def run(self) -> dict:
        """Train through all stages; give the figure and the seconds of a step."""
        student = self.student(self.seed)
        stages = self.method(self.teacher) if callable(self.method) else self.method
        stages = [stages] if isinstance(stages, Mapping) else stages or [{}]
        for stage in stages:
            stage = stage and {"teacher": self.teacher, **stage}
            model = Distiller(student, **stage) if stage else student
            clock = _StepClock()
            self.fit(model, self.seed, [clock])
        return {**_judged(student, self.judge), "seconds": clock.median()}


def _judged(model, judge) -> dict:
    """Give the figure and the number of parameters of a model, or an ensemble."""
    models = getattr(model, "models", (model,))
    count = sum(member.count_params() for member in models)
    return {"figure": float(judge(model)), "parameters": count}


class _StepClock(keras.callbacks.Callback):
    """Takes the time from one step to the next, or one execution of several."""

    def __init__(self):
        super().__init__()
        self.seconds, self.last = [], None

    def on_epoch_begin(self, epoch, logs=None):
        self.last = None

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self.last is not None:
            seconds, since = now - self.last[0], batch - self.last[1]
            self.seconds.append(seconds / max(since, 1))
        self.last = now, batch

    def median(self):
        """Give the median; None of a training of single steps."""
        return statistics.median(self.seconds) if self.seconds else None


def _rows(runs: Runs, methods, seeds: int) -> list[dict]:
    rows, first = [], None
    for name in ("teacher", *methods):
        cells = runs[name][:seeds]
        figures = [cell["figure"] for cell in cells]
        row = {"method": name, "mean": f"{statistics.fmean(figures):.2f}"}
        if len(figures) > 1:
            row["deviation"] = f"{statistics.pstdev(figures):.2f}"
        row["parameters"] = f"{cells[0]['parameters']:,}"
        seconds = [cell["seconds"] for cell in cells if cell.get("seconds")]
        if seconds:
            first = first or statistics.median(seconds)
            row["step"] = f"{statistics.median(seconds) / first:.2f}"
        rows.append(row)
    return rows
