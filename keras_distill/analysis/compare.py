"""Comparison of methods over several seeds, with finished runs kept on disk."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_distill._backend.number_checks import check_integers
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
    """Train the same student with several methods, and evaluate each.

    Each pair of a method and a seed is one run, and all methods of a seed start from the
    same weights. A run whose result is in `runs` is skipped, so an interrupted comparison
    resumes where it stopped, and methods and seeds can be added later.

    Args:
        methods: by name, None for the student alone, or keyword arguments of
            `kd.Distiller` such as `{"terms": [...], "label_weight": 0.1}`. A list of such
            dicts is trained as stages, in order; an empty dict is the student alone. A
            function is called with the teacher and returns either. A `"teacher"` among
            the arguments overrides the common teacher.
        student: function from a seed to an untrained student.
        teacher: function from a seed to a trained teacher, or an ensemble.
        fit: called as `fit(model, seed, callbacks)`; compiles and trains the student or
            the distiller, and must pass the callbacks to `model.fit`. With
            `label_weight=0` it receives a distiller whose `label_source` is 0.
        judge: function from a trained student, or the teacher, to its metric, on data
            that was not used for selection.
        runs: stores the results.
        seeds: number of seeds; they are 0 to `seeds - 1`. Default 3.

    Returns:
        One row per method, for `kd.analysis.table`: mean and standard deviation of the
        metric, parameters of the student without its adapters, and the median time of a
        step relative to the first method. The first row is the teacher.

    Raises:
        ValueError: `methods` is empty, one is called "teacher", or one is not a function
            and holds an adapter layer, which later runs would continue to train.

    Example:
        >>> rows = kd.analysis.compare(
        ...     {"alone": None, "KD": {"terms": [kd.Term(kd.losses.SoftTarget(4.0))]}},
        ...     student=make_student, teacher=load_teacher, fit=fit, judge=accuracy,
        ...     runs=kd.analysis.Runs("runs/accuracies.json"))
        >>> print(kd.analysis.table(rows))
    """
    if not methods or "teacher" in methods:
        raise ValueError(
            "Expected one or more methods, by names other than 'teacher', which is the "
            f"row of the teacher itself; got {list(methods)}."
        )
    _check_no_shared_adapters(methods)
    check_integers(1, seeds=seeds)
    for seed in range(seeds):
        trained = teacher(seed)
        runs.once("teacher", seed, functools.partial(_evaluated, trained, judge))
        for name, method in methods.items():
            run = functools.partial(_run, method, student, trained, fit, judge, seed)
            result = runs.once(name, seed, run)
            print(f"{name}, seed {seed}: {result['figure']:.4g}", flush=True)
    return _rows(runs, methods, seeds)


def _check_no_shared_adapters(methods) -> None:
    """Check that no adapter layer is trained in one run and reused in the next."""
    for name, method in methods.items():
        stages = [method] if isinstance(method, Mapping) else method
        for stage in () if stages is None or callable(stages) else stages:
            for term in stage.get("terms", ()):
                if any(isinstance(layer, keras.Layer) for layer in term.adapters):
                    raise ValueError(
                        f"The term '{term.name}' of method '{name}' holds an adapter "
                        "layer, which each run would continue to train. Pass a function "
                        "from the teacher that creates new terms."
                    )


def _run(method, make_student, teacher, fit, judge, seed) -> dict:
    """Train a student in all stages of a method, and evaluate it."""
    student = make_student(seed)
    stages = method(teacher) if callable(method) else method
    stages = [stages] if isinstance(stages, Mapping) else stages or [{}]
    for stage in stages:
        stage = stage and {"teacher": teacher, **stage}
        model = Distiller(student, **stage) if stage else student
        clock = _StepClock()
        fit(model, seed, [clock])
    # None if no epoch had two steps.
    seconds = statistics.median(clock.seconds) if clock.seconds else None
    return {**_evaluated(student, judge), "seconds": seconds}


def _evaluated(model, judge) -> dict:
    """Return the metric and the number of parameters of a model or an ensemble."""
    models = getattr(model, "models", (model,))
    count = sum(member.count_params() for member in models)
    return {"figure": float(judge(model)), "parameters": count}


class _StepClock(keras.callbacks.Callback):
    """Time from one step to the next, also with `steps_per_execution` above 1."""

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


def _rows(runs: Runs, methods, seeds: int) -> list[dict]:
    rows, first = [], None
    for name in ("teacher", *methods):
        results = runs[name][:seeds]
        figures = [result["figure"] for result in results]
        row = {"method": name, "mean": f"{statistics.fmean(figures):.2f}"}
        if len(figures) > 1:
            row["std"] = f"{statistics.pstdev(figures):.2f}"
        row["parameters"] = f"{results[0]['parameters']:,}"
        seconds = [result["seconds"] for result in results if result.get("seconds")]
        if seconds:
            first = first or statistics.median(seconds)
            row["step"] = f"{statistics.median(seconds) / first:.2f}"
        rows.append(row)
    return rows
