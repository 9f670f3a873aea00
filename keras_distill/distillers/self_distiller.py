"""Self-distillation: a net whose end teaches its earlier exits."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_distill import taps
from keras_distill.data.selection import select
from keras_distill.distillers import term_checks as checks
from keras_distill.distillers.compiling import KeptCompile
from keras_distill.distillers.copied import copied
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.exits import (
    DEEPEST,
    OwnTeacher,
    bottleneck_of,
    have_gradients,
    stopped,
    with_exits,
)
from keras_distill.distillers.gradient_scores import scores
from keras_distill.distillers.term import Term
from keras_distill.losses import Hint, SoftTarget
from keras_distill.taps import tracing


@keras.saving.register_keras_serializable(package="keras_distill")
class SelfDistiller(KeptCompile, Distiller):
    """Train a net that predicts at several depths, the deepest of which teaches.

    Exits are built on layers of a functional net. One step runs it once:

        total = CE_deepest + sum_i (1 - a) CE_i + a T^2 KL_i + l / 2 mean (F_deepest - F_i)^2

    where `KL_i` is from the deepest prediction to that of exit i, and `F_i` what the
    exit's convolutions make of its layer; the deepest side carries no gradient. The
    paper's hint is a sum over the map, here it is a mean. Metrics are those of each
    exit, by its name and `deepest`; `predict` gives a dict of all, `exit(name)` a plain
    model that ends there.

    Args:
        net: functional, of one output of logits. It is trained with its exits.
        exits: names of layers, from the input on.
        features: the layer, after all exits, whose values exits are compared with.
            Default: none are, and exits are a pooling and a dense layer.
        soft_weight: a, from 0 to 1. Default 0.3.
        hint_weight: l, 0 or more. Default 0.03.
        temperature: T. Default 3.
        name: model name.

    Raises:
        TypeError: the net is not functional.
        ValueError: a layer that is not there, or weights out of range; as `fit` begins,
            a layer to which no gradient comes from the output.

    Example:
        >>> distiller = kd.SelfDistiller(net, ["stack1", "stack2"], features="stack3")
        >>> distiller.compile(
        ...     "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ...     metrics=["accuracy"])
        >>> distiller.fit(train, epochs=20)
        >>> distiller.exit("stack1").save("early.keras")

    Source:
        Zhang et al. 2019, Be your own teacher: improve the performance of convolutional
        neural networks via self distillation.
    """

    def __init__(
        self,
        net: keras.Model,
        exits: Sequence[str],
        *,
        features: str | None = None,
        soft_weight: float = 0.3,
        hint_weight: float = 0.03,
        temperature: float = 3.0,
        name: str | None = None,
    ):
        if not 0.0 <= soft_weight <= 1.0:
            raise ValueError(f"soft_weight lies in 0..1; got {soft_weight}.")
        student = with_exits(net, exits, features)
        terms = []
        for exit in exits:
            soft = SoftTarget(temperature)
            own, deepest = (f"{taps.LOGITS}/{side}" for side in (exit, DEEPEST))
            terms.append(Term(soft, own, deepest, soft_weight, name=f"soft_{exit}"))
            if features is not None:
                own = bottleneck_of(exit)
                hint = Term(Hint(), own, features, hint_weight, name=f"hint_{exit}")
                terms.append(hint)
        teacher = OwnTeacher(student)
        super().__init__(student, teacher, terms=terms, name=name)
        self.exits, self.features = list(exits), features
        self.soft_weight, self.hint_weight = soft_weight, hint_weight
        self.temperature = temperature
        # A function, so that the net's weights are not saved twice.
        self.net = lambda: net
        spec = tracing.input_of(student)
        self._bind(spec, spec)
        self.classes = net.output.shape[-1]

    def compile(self, optimizer="rmsprop", loss=None, metrics=None, **arguments):
        """Take an optimiser, and a loss and metrics for every exit.

        Args:
            optimizer, loss, metrics: as in `keras.Model.compile`; metrics are names or
                are copied.
            **arguments: the others of `keras.Model.compile`.
        """
        names = [*self.exits, DEEPEST]
        weights = dict.fromkeys(self.exits, 1.0 - self.soft_weight) | {DEEPEST: 1.0}
        super().compile(
            optimizer,
            loss and dict.fromkeys(names, loss),
            loss_weights=weights if loss else None,
            metrics=metrics and {name: copied(metrics) for name in names},
            **arguments,
        )
        self.keep_compile(loss=loss, metrics=metrics, **arguments)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Give the loss of the labels, summed over the exits with their weights."""
        y, sample_weight = self._for_all(y), self._for_all(sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Count every exit's prediction."""
        y, sample_weight = self._for_all(y), self._for_all(sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def can_fit(self, batch) -> None:
        """Check what is there before training."""
        super().can_fit(batch)
        if batch is None:
            return
        x, labels, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if self.loss is not None:
            checks.labels_fit(labels, self.classes, self._given()["loss"])
        few = keras.tree.map_structure(
            lambda part: None if part is None else part[:2], x
        )
        have_gradients(self.net(), self.exits, select(few, self.student_inputs))

    def exit(self, name: str = DEEPEST) -> keras.Model:
        """Give a plain model that ends at an exit; it shares the trained weights.

        Args:
            name: of an exit's layer, or `"deepest"` (default).

        Raises:
            ValueError: there is no such exit.
        """
        outputs = self.student.output
        if name not in outputs:
            raise ValueError(f"There is no exit '{name}'; there are {list(outputs)}.")
        return keras.Model(self.student.inputs, outputs[name], name=f"exit_{name}")

    def get_config(self) -> dict:
        """Give the arguments."""
        return {
            "net": keras.saving.serialize_keras_object(self.net()),
            "exits": self.exits,
            "features": self.features,
            "soft_weight": self.soft_weight,
            "hint_weight": self.hint_weight,
            "temperature": self.temperature,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> SelfDistiller:
        """Make a distiller from its arguments."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))

    def _know(self, x, y) -> dict:
        """Move what schedules move; nothing runs before the net does."""
        self.move()
        return {}

    def _learn(self, x, y, sample_weight, knowledge: dict) -> tuple:
        """Run the net once; its deepest part is the knowledge."""
        y_pred, features = taps.forward(
            self.student,
            select(x, self.student_inputs),
            dict.fromkeys([*self.student_taps, *self.teacher_taps]),
            training=True,
            scores=scores(y),
        )
        knowledge = stopped(features, self.teacher_taps)
        return self._judge(x, y, sample_weight, y_pred, features, knowledge)

    def _for_all(self, value):
        """Give every exit the same labels, unless they are named already."""
        if value is None or isinstance(value, dict):
            return value
        return dict.fromkeys([*self.exits, DEEPEST], value)
