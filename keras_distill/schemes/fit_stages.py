"""The run of stages."""

from __future__ import annotations

from collections.abc import Sequence

from keras_distill.distillers import term_checks as checks
from keras_distill.distillers.distiller import Distiller
from keras_distill.schemes.progress import Ledger, Progress
from keras_distill.schemes.stage_data import Data
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
    """Train a distiller's student in stages, one after another.

    The distiller gives student, teacher, loss and metrics; each stage trains with its
    own terms, whose inferred adapters are new, and its own optimiser. Interrupted and
    called again with the same `backup`, it goes on in the stage, and after the epoch,
    where it was.

    Args:
        distiller: compiled.
        stages: in order.
        x, y: as in `fit`; no generator.
        validation_data: as in `fit`, for stages that learn from labels.
        backup: a folder that keeps what is done. Default: none.
        verbose: 0 for nothing, 1 or `"auto"` for one bar over the epochs of all
            stages, 2 for a line an epoch.
        **arguments: of `fit`, for every stage: `batch_size`, `shuffle`, `callbacks`, ...

    Returns:
        A history for each stage: lists by name.

    Raises:
        ValueError: no stages, a distiller that is not compiled, a stage that trains
            nothing or needs what none before it prepares, labels or a loss that do not
            fit, a generator, a backup of other stages; all before the first step.

    Example:
        >>> distiller = kd.Distiller(student, teacher)
        >>> distiller.compile("adam", loss, metrics=["accuracy"])
        >>> kd.fit_stages(distiller, [
        ...     kd.Stage([hint], trains="stack2", label_weight=0.0, epochs=20),
        ...     kd.Stage([soft], epochs=50),
        ... ], train)
        >>> distiller.student.save("student.keras")

    Source:
        Romero et al. 2015, FitNets: hints for thin deep nets.
    """
    stages = list(stages)
    _can_begin(distiller, stages)
    data = Data(distiller, x, y, validation_data, arguments)
    with data.scope():
        trainers = [stage.trainer(distiller, data) for stage in stages]
    ledger = Ledger(backup, [[stage.name, stage.epochs] for stage in stages])
    progress = Progress(sum(stage.epochs for stage in stages), verbose)
    histories = []
    for place, (stage, trainer) in enumerate(zip(stages, trainers, strict=True)):
        progress.begin(
            f"Stage {place + 1} of {len(stages)}: {stage.name}", stage.epochs
        )

        def train(own, stage=stage, trainer=trainer):
            return stage.fit(trainer, distiller, data, [progress, *own])

        histories.append(ledger.once(place, trainer, train))
        stage.finish()
        progress.finish()
    return histories


def _can_begin(distiller, stages) -> None:
    if not stages:
        raise ValueError("There are no stages; give one or more kd.Stage.")
    if not getattr(distiller, "compiled", False):
        raise ValueError(
            "The distiller is not compiled: stages take its loss and metrics. Call "
            "distiller.compile(optimizer, loss, metrics=...) first."
        )
    checks.can_train(distiller.teacher)
    prepared = []
    for stage in stages:
        prepared += stage.check(distiller, prepared)
