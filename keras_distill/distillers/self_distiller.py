"""Self-distillation: a model whose deepest prediction teaches its earlier exits."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_distill import taps
from keras_distill._backend import keras_functions
from keras_distill._backend.keras_layers import Untracked
from keras_distill._backend.number_checks import check_in
from keras_distill.data.entry import Entry
from keras_distill.data.preprocessing import carry_preprocessing
from keras_distill.data.selection import Selection
from keras_distill.distillers import binding
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.exits import (
    DEEPEST,
    bottleneck_of,
    check_gradients,
    single,
    with_exits,
)
from keras_distill.distillers.gradient_scores import gradient_scores
from keras_distill.distillers.kept_compile import copied, default_metrics
from keras_distill.distillers.own_methods import check_keeps_nothing, warn_of_steps
from keras_distill.distillers.step import StepLoss
from keras_distill.distillers.task_term import TaskTerm
from keras_distill.distillers.term import Term
from keras_distill.losses import Hint, SoftTarget
from keras_distill.taps import Tap, tracing
from keras_distill.taps.masks import with_masks
from keras_distill.teachers.self_teacher import SelfTeacher


@keras.saving.register_keras_serializable(package="keras_distill")
class SelfDistiller(Distiller):
    r"""Train a model that predicts at several depths, the deepest of which teaches.

    Exits are built on layers of a functional or sequential model. One step runs it once:

    .. math::

        \mathrm{total} &= \mathrm{CE}_{\mathrm{deepest}} + \sum_i \mathrm{exit}_i

        \mathrm{exit}_i &= (1 - a) \, \mathrm{CE}_i + a \, T^2 \, \mathrm{KL}_i
            + \frac{l}{2} \, \mathrm{mean} \, (F_{\mathrm{deepest}} - F_i)^2

    where `KL_i` is from the deepest prediction to that of exit i, and `F_i` the output of
    the exit's convolutions; the deepest side carries no gradient. The paper's hint is a
    sum over the map, here it is half a mean: its weight l on `||F_deepest - F_i||^2` is
    `hint_weight=2 * H * W * C * l`, 61 for 0.03 on 64 channels of 4x4, so that the default
    pulls far less than the paper's. `T^2 KL_i` is `SoftTarget` of classes,
    `BinarySoftTarget` of independent labels and `OutputRegression` of values, by the
    loss passed to `compile`. Metrics are those of each exit, under its name
    and `deepest`; `predict` returns a dict of all, `exit(name)` a plain model that ends
    there.

    Args:
        net: a functional or sequential model with one output of logits. It is trained
            with its exits.
        exits: names of layers, from the input on.
        features: the layer, after all exits, that the exits' features are compared
            with. Default: none, and exits are a pooling and a dense layer.
        soft_weight: a, from 0 to 1. Default 0.3.
        hint_weight: l, 0 or more. Default 0.03, the paper's number, of a mean.
        temperature: T. Default 3.
        inputs: the net's part of the batch's inputs, as `student_inputs` of `Distiller`.
            Default: all.
        name: model name.

    Raises:
        TypeError: the net is neither functional nor sequential, or its inputs are unknown.
        ValueError: a layer that does not exist, or weights out of range; as `fit`
            begins, a layer that no gradient reaches from the output.

    Example:
        >>> distiller = kd.SelfDistiller(net, ["stack1", "stack2"], features="stack3")
        >>> distiller.compile(
        ...     "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ...     metrics=["accuracy"])
        >>> distiller.fit(train, epochs=2)
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
        inputs: Selection = None,
        name: str | None = None,
    ):
        check_in(0, 1, soft_weight=soft_weight)
        check_in(0, hint_weight=hint_weight)
        check_keeps_nothing(net)
        student = carry_preprocessing(net, with_exits(net, exits, features))
        hint, terms = Hint(), []
        for exit in exits:
            pair = Tap.output(exit), Tap.output(DEEPEST)
            soft = SoftTarget(temperature)
            settings = {"temperature": temperature, "name": f"soft_{exit}"}
            terms.append(TaskTerm(soft, *pair, soft_weight, **settings))
            if features is not None:
                pair = bottleneck_of(exit), features
                terms.append(Term(hint, *pair, hint_weight, name=f"hint_{exit}"))
        own = {"terms": terms, "inputs": inputs, "name": name}
        super().__init__(student, SelfTeacher(student), **own)
        self.exits, self.features = list(exits), features
        self.soft_weight, self.hint_weight = soft_weight, hint_weight
        self.temperature = temperature
        # Its weights are the student's, and are not saved twice.
        self.net = Untracked(net)
        if tracing.declares_sizes(student):
            specs = tracing.input_of(student)
            binding.bind(self, specs, specs)
            self.classes = net.outputs[0].shape[-1]

    def bind_to(self, x) -> None:
        """Create the adapters from a batch, if the net's inputs have unknown sizes."""
        super().bind_to(x)
        self.classes = self.net.value.outputs[0].shape[-1]

    def compile(
        self,
        optimizer: str | keras.Optimizer = "rmsprop",
        loss: Any = None,
        metrics: Any = "auto",
        weighted_metrics: Any = "auto",
        **arguments: Any,
    ) -> None:
        """Configure the training: an optimizer, and loss and metrics for every exit.

        Args:
            optimizer, loss, metrics, weighted_metrics: as in `keras.Model.compile`;
                metrics that are not names are copied.
            **arguments: other arguments of `keras.Model.compile`.
        """
        warn_of_steps(self.net.value)
        given = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        kept = default_metrics(self.net.value, loss, given)
        names = [*self.exits, DEEPEST]
        weights = dict.fromkeys(self.exits, 1.0 - self.soft_weight) | {DEEPEST: 1.0}
        super().compile(
            optimizer,
            loss and dict.fromkeys(names, loss),
            loss_weights=weights if loss else None,
            **{
                kind: found and {name: copied(found) for name in names}
                for kind, found in kept.items()
            },
            **arguments,
        )
        self.keep_compile(loss=loss, **kept, **arguments)

    def label_loss(self, inputs, y, y_pred, sample_weight, training: bool):
        """Return the loss of the labels, summed over the exits with their weights."""
        y, sample_weight = self._for_all(y), self._for_all(sample_weight)
        return super().label_loss(inputs, y, y_pred, sample_weight, training)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Return the loss of the labels; in an evaluation with the model's penalties."""
        y, sample_weight = self._for_all(y), self._for_all(sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def update_metrics(self, inputs, y, y_pred, sample_weight) -> dict:
        """Update the metrics of every exit."""
        y, sample_weight = self._for_all(y), self._for_all(sample_weight)
        return super().update_metrics(inputs, y, y_pred, sample_weight)

    def check_fit(self, batch) -> None:
        """Check data, loss and exits before the first step."""
        super().check_fit(batch)
        if batch is None:
            return
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        few = keras.tree.map_structure(
            lambda part: None if part is None else part[:2], x
        )
        few = self.entry.student_alone(few)
        check_gradients(self.net.value, self.exits, few)

    def exit(self, name: str = DEEPEST) -> keras.Model:
        """Return a plain model that ends at an exit; it shares the trained weights.

        Args:
            name: name of an exit's layer, or `"deepest"` (default).

        Raises:
            ValueError: there is no such exit.
        """
        outputs = self.student.output
        if name not in outputs:
            raise ValueError(f"There is no exit '{name}'; there are {list(outputs)}.")
        return keras.Model(
            single(self.student.inputs), outputs[name], name=f"exit_{name}"
        )

    def get_config(self) -> dict:
        return {
            "net": keras.saving.serialize_keras_object(self.net.value),
            "exits": self.exits,
            "features": self.features,
            "soft_weight": self.soft_weight,
            "hint_weight": self.hint_weight,
            "temperature": self.temperature,
            "task": self.terms[f"soft_{self.exits[0]}"].predicts,
            "inputs": keras_functions.serialize(self.shared_inputs),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "SelfDistiller":
        config = keras.saving.deserialize_keras_object(config, custom_objects)
        task = config.pop("task", None)
        distiller = cls(**config)
        binding.settle(distiller, binding.known_lengths(distiller), task)
        return distiller

    @property
    def entry(self) -> Entry:
        """What the model takes of a batch."""
        inputs, own = self.shared_inputs, [self.student]
        return Entry(inputs, None, None, self.sample_ids, own, one_sided=True)

    def run_teacher(self, x, y) -> dict:
        """Advance the schedules; the knowledge comes from the student's run."""
        self.advance_schedules()
        return {}

    def knowledge_of(self, x, y) -> dict:
        """Return nothing: the knowledge comes from the student's run."""
        return {}

    def run_student(
        self, x, y, sample_weight, knowledge: dict, training: bool = True
    ) -> StepLoss:
        """Run the model once; its deepest part is the knowledge."""
        inputs = self.entry.student_part(x, training)
        y_pred, features = taps.forward(
            self.student,
            inputs,
            dict.fromkeys([*self.student_taps, *self.teacher_taps]),
            training=training,
            scores=gradient_scores(y),
        )
        knowledge = self.teacher.knowledge(features, self.teacher_taps)
        knowledge = with_masks(knowledge, self.lengths.teacher, inputs)
        run = y_pred, features
        return self.compare(x, y, sample_weight, *run, knowledge, inputs, training)

    def _for_all(self, value):
        """Return the same labels for every exit, unless they are named."""
        if value is None or isinstance(value, dict):
            return value
        return dict.fromkeys([*self.exits, DEEPEST], value)
