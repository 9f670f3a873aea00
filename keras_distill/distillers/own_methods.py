"""Students whose class has a loss, metrics or steps of its own."""

import inspect
import warnings

import keras

from keras_distill._backend import own_loss
from keras_distill._backend.jax_state import losses_of_run
from keras_distill._backend.keras_trainer import strategy_of

# What `compile` takes for the step, which is the distiller's.
_OF_THE_STEP = ("run_eagerly", "steps_per_execution", "jit_compile", "auto_scale_loss")
_STEPS = ("train_step", "test_step", "predict_step")


def has_own(model: keras.Model, method: str) -> bool:
    """Whether a model has a method of its own in place of Keras's."""
    found = getattr(model, method)
    return getattr(found, "__func__", found) is not getattr(keras.Model, method)


def judges_itself(model: keras.Model) -> bool:
    """Whether a model has its own `compute_loss` or `compute_metrics`."""
    return has_own(model, "compute_loss") or has_own(model, "compute_metrics")


def warn_of_steps(model: keras.Model) -> None:
    """Warn of steps of a model's own, which a distiller does not run."""
    steps = [name for name in _STEPS if has_own(model, name)]
    if steps:
        warnings.warn(
            f"{type(model).__name__} has its own {' and '.join(steps)}, which a distiller "
            "does not run: it trains, evaluates and predicts with the model's call. Move "
            "what they do into call, compute_loss or compute_metrics, which it keeps, or "
            "use the model's own evaluate and predict.",
            stacklevel=3,
        )


def check_keeps_nothing(net: keras.Model) -> None:
    """Check that a net that gets exits has no loss or metrics of its own."""
    own = [x for x in ("compute_loss", "compute_metrics") if has_own(net, x)]
    if own:
        raise ValueError(
            f"{type(net).__name__} has its own {' and '.join(own)}, which can't judge the "
            "exits that kd.SelfDistiller builds. Pass keras.Model(net.inputs, net.outputs), "
            "which has the same layers, and compile the loss."
        )


def keras_arguments(arguments: dict) -> dict:
    """Return the arguments that `keras.Model.compile` takes."""
    known = inspect.signature(keras.Model.compile).parameters
    return {name: x for name, x in arguments.items() if name in known}


class OwnMethods:
    """Keep a student's own `compute_loss` and `compute_metrics`.

    A student with one of them is compiled with what the distiller's `compile` gets, and
    both methods are the student's. A mixin in front of `keras.Model`.
    """

    judged_by_student = False

    def compile_student(self, arguments: dict) -> dict:
        """Compile a student that judges itself; return the arguments for the distiller.

        One that is compiled already keeps its loss and metrics if none are passed.
        """
        if not self.judged_by_student:
            return arguments
        student = self.student
        given = {
            name: value
            for name, value in arguments.items()
            if value is not None and name not in _OF_THE_STEP
        }
        if given or not student.compiled:
            optimizer = student.optimizer if student.compiled else None
            try:
                student.compile(optimizer=optimizer, **given)
            except TypeError as error:
                raise TypeError(
                    f"{type(student).__name__} has its own loss or metrics, so its "
                    f"compile gets {['optimizer', *given]} from the distiller's: {error}. "
                    "Pass what it takes, or compile the student before and leave them out."
                ) from error
        return {name: x for name, x in arguments.items() if name in _OF_THE_STEP}

    def take_students_loss(self, loss) -> None:
        """Note the loss that counts, which was passed or which the student has."""
        if self.judged_by_student:
            if loss is None and self.label_source != 0:
                loss = self.student.loss
            # Not as an attribute, whose losses Keras would track and save.
            vars(self)["loss"] = loss

    def models_of_state(self) -> list[keras.Model]:
        """Return the models whose metrics, loss and optimizer `build_state` builds."""
        models = super().models_of_state()
        return [*models, self.student] if self.judged_by_student else models

    def has_label_loss(self) -> bool:
        """Whether a step has a loss of the labels: the compiled or the student's own."""
        if getattr(self, "loss", None) is not None:
            return True
        return self.has_own_loss() and self.label_source != 0

    def has_own_loss(self) -> bool:
        """Whether the loss of the labels is the student's own, if there is one."""
        return self.judged_by_student and has_own(self.student, "compute_loss")

    @property
    def metrics(self) -> list[keras.Metric]:
        """The running means of the logs; the student's metrics if it judges itself."""
        metrics = super().metrics
        if not self.judged_by_student:
            return metrics
        present = {id(metric) for metric in metrics}
        return metrics + [
            metric
            for metric in self.student.metrics
            if id(metric) not in present and metric.name != "loss"
        ]

    def reset_metrics(self) -> None:
        """Reset the running means, the student's too if it judges itself."""
        super().reset_metrics()
        if self.judged_by_student:
            self.student.reset_metrics()

    def build_state(self, batch) -> None:
        """Build metrics, loss and optimizer, and what the student was compiled with."""
        if not self.judged_by_student:
            super().build_state(batch)
            return
        if keras.backend.backend() == "tensorflow" and strategy_of(self) is None:
            # As Keras does, since targets that a student makes may need real sizes.
            return
        super().build_state(batch)
        if batch is None:
            return
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if y is not None:
            x = self.entry.student_alone(keras.tree.map_structure(_spec, x))
            own_loss.build_compiled(self.student, (x, y, sample_weight))

    def label_loss(self, inputs, y, y_pred, sample_weight, training: bool):
        """Return the loss of the labels, without penalties."""
        if not self.judged_by_student:
            return super().label_loss(inputs, y, y_pred, sample_weight, training)
        with own_loss.without_penalties(self.student):
            return own_loss.own_loss(
                self.student, inputs, y, y_pred, sample_weight, training
            )

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Return the loss of the labels; in an evaluation with the student's penalties."""
        arguments = y, y_pred, sample_weight, training
        if training or not self.judged_by_student or not self.has_label_loss():
            return super().compute_loss(x, *arguments)
        inputs = self.entry.student_alone(x)
        with own_loss.with_penalties(self.student, losses_of_run(self)):
            return own_loss.own_loss(self.student, inputs, *arguments)

    def compute_metrics(self, x, y, y_pred, sample_weight=None) -> dict:
        """Update the metrics; return the logs of an evaluation."""
        if self.judged_by_student:
            x = self.entry.student_alone(x)
        return self.update_metrics(x, y, y_pred, sample_weight)

    def update_metrics(self, inputs, y, y_pred, sample_weight) -> dict:
        """Update the metrics, by the student's own method if it has one."""
        keeps = self.judged_by_student and has_own(self.student, "compute_metrics")
        if y is None and not (keeps and self.has_label_loss()):
            return self.results(without=[self.part_means.name, "compile_metrics"])
        if not self.judged_by_student:
            return super().compute_metrics(inputs, y, y_pred, sample_weight)
        logs = self.student.compute_metrics(inputs, y, y_pred, sample_weight)
        own = {name: value for name, value in logs.items() if name != "loss"}
        return {"loss": self.get_metrics_result()["loss"], **own}


def _spec(x):
    return keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype))
