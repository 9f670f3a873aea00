"""The default term of the distillers, whose loss follows the task."""

import keras

from keras_distill.distillers.term import Term
from keras_distill.losses import BinarySoftTarget, OutputRegression, SoftTarget
from keras_distill.teachers.base_teacher import LABELS, VALUES


@keras.saving.register_keras_serializable(package="keras_distill")
class TaskTerm(Term):
    """A term on predictions whose loss follows what the student is compiled with.

    That is `SoftTarget` for classes, `BinarySoftTarget` for independent labels and
    `OutputRegression` for values. Until the task is known it is `SoftTarget`.

    Args:
        *arguments: of `kd.Term`. Default: soft targets of the outputs.
        temperature: of soft targets. Default 4.
        **keywords: of `kd.Term`.
    """

    def __init__(self, *arguments, temperature: float = 4.0, **keywords):
        if not arguments and "loss" not in keywords:
            arguments = (SoftTarget(temperature),)
        super().__init__(*arguments, **keywords)
        self.temperature = temperature
        # That the loss was chosen for; None as long as it is the default.
        self.task = None

    def copy(self, teacher=None, name: str | None = None) -> "TaskTerm":
        """Return a term of the same loss, which follows the task too."""
        copy = super().copy(teacher, name)
        copy.temperature, copy.task = self.temperature, self.task
        return copy

    def for_task(self, task: str) -> "TaskTerm":
        """Return the term with the loss that fits, itself if it has that.

        The name of its loss, in the term's own, changes too.
        """
        loss = loss_for(task, self.temperature)
        if type(loss) is type(self.loss):
            return self
        term = self.copy(name=self.name.replace(self.loss.name, loss.name, 1))
        term.loss, term.task = loss, task
        return term

    def get_config(self) -> dict:
        own = {"temperature": self.temperature, "task": self.task}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict) -> "TaskTerm":
        term = super().from_config(config)
        term.temperature, term.task = config["temperature"], config["task"]
        return term


def loss_for(task: str, temperature: float = 4.0):
    """Return the loss that compares predictions of a task."""
    if task == LABELS:
        return BinarySoftTarget(temperature)
    return OutputRegression() if task == VALUES else SoftTarget(temperature)
