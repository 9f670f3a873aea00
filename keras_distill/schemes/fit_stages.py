"""Training in stages."""

from collections.abc import Sequence

from keras_distill.distillers import term_checks
from keras_distill.distillers.distiller import Distiller
from keras_distill.schemes.progress import Ledger, Progress
from keras_distill.schemes.stage_data import StageData
from keras_distill.schemes.stages import ParaphraserStage, Stage


def fit_stages(
    distiller: Distiller,
    stages: Sequence[Stage | ParaphraserStage],
    x,
    y=None,
    *,
    validation_data=None,
    backup: str | None = None,
    verbose: int | str = "auto",
    **arguments,
) -> list[dict]:
    """Train a distiller's student in consecutive stages.

    The student, teacher, loss and metrics are the distiller's; each stage has its own
    terms, with newly inferred adapters, and its own optimizer. After an interruption, a
    call with the same `backup` resumes the stage after its last complete epoch.

    Args:
        distiller: compiled distiller.
        stages: the stages, in order.
        x, y: as in `fit`; generators are not supported.
        validation_data: as in `fit`, for stages that use labels.
        backup: folder that keeps the progress. Default: none.
        verbose: 0 for silent, 1 or `"auto"` for one bar over the epochs of all stages
            with the time left, 2 for one line per epoch.
        **arguments: arguments of `fit` for all stages: `batch_size`, `callbacks`, ...

    Returns:
        The history of each stage, lists by name.

    Raises:
        ValueError: before the first step: there are no stages, the distiller is not
            compiled, a stage trains nothing or needs what no earlier stage prepares,
            labels or loss do not fit, `x` is a generator, or `backup` holds other
            stages.

    Example:
        >>> distiller = kd.Distiller(student, teacher)
        >>> distiller.compile("adam", loss, metrics=["accuracy"])
        >>> kd.fit_stages(distiller, [
        ...     kd.Stage([hint], trains="stack2", label_weight=0.0, epochs=2),
        ...     kd.Stage([soft], epochs=2),
        ... ], train)
        >>> distiller.student.save("student.keras")

    Source:
        Romero et al. 2015, FitNets: hints for thin deep nets.
    """
    stages = list(stages)
    _check_stages(distiller, stages)
    data = StageData(distiller, x, y, validation_data, arguments)
    with data.scope():
        trainers = [stage.trainer(distiller, data) for stage in stages]
    ledger = Ledger(backup, [[stage.name, stage.epochs] for stage in stages])
    progress = Progress(sum(stage.epochs for stage in stages), verbose)
    histories = []
    for i, (stage, trainer) in enumerate(zip(stages, trainers, strict=True)):

        def train(callbacks, stage=stage, trainer=trainer):
            return stage.fit(trainer, distiller, data, [progress, *callbacks])

        title = f"Stage {i + 1} of {len(stages)}: {stage.name}"
        with progress.training(title, stage.epochs):
            histories.append(ledger.once(i, train))
        stage.finish()
    return histories


def _check_stages(distiller, stages) -> None:
    if not stages:
        raise ValueError("There are no stages; pass one or more kd.Stage.")
    if not getattr(distiller, "compiled", False):
        raise ValueError(
            "The distiller is not compiled: stages use its loss and metrics. Call "
            "distiller.compile(optimizer, loss, metrics=...) first."
        )
    term_checks.check_has_teacher(distiller.teacher)
    prepared = []
    for stage in stages:
        prepared += stage.check(distiller, prepared)
