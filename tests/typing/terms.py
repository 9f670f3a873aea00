"""Terms, losses with schedules, targets, adapters and a loss of one's own."""

import keras
from keras import ops

import keras_distill as kd

decay = keras.optimizers.schedules.CosineDecay(1.0, 1000)


class Gap(kd.losses.DistillationLoss):
    """The largest difference of any class."""

    match = kd.adapters.Match.CLASSES
    predicts = "classes"

    def __init__(self, power: float = 2.0, name: str | None = None):
        super().__init__(name)
        self.power = power

    def call(self, teacher, student):
        return ops.max(ops.power(ops.abs(teacher - student), self.power), axis=-1)


class Negated(kd.targets.Target):
    """The opposite of the teacher."""

    def call(self, log_probabilities, labels=None):
        return -log_probabilities


def distill(student: keras.Model, teacher: keras.Model) -> kd.Distiller:
    """Combine all kinds of terms."""
    terms: list[kd.Term] = [
        kd.Term(kd.losses.SoftTarget(temperature=4.0), weight=0.9),
        kd.Term(kd.losses.SoftTarget(decay, target=kd.targets.Uniform()), name="soft"),
        kd.Term(kd.losses.Hint(), student="stack2", teacher="stack3", weight=decay),
        kd.Term(kd.losses.AttentionMap(power=2), "stack3", "stack3", weight="balanced"),
        kd.Term(
            kd.losses.FlowMatrix(),
            student=("stack1", "stack2"),
            teacher=["stack1", kd.Tap.layer("stack2")],
            adapter=None,
        ),
        kd.Term(kd.losses.Hint(), "a", "b", adapter=keras.layers.Dense(3)),
        kd.Term(Gap(3.0), mask=None, weight=kd.ScaledSchedule(decay, 2.0)),
    ]
    found = kd.Distiller(student, teacher, terms=terms, label_weight=decay)
    found.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        validate_terms=True,
        log_weights=True,
        jit_compile=False,
    )
    found.terms["hint"].weight.assign(0.5)
    weights: kd.SuggestedWeights = kd.suggest_weights(found, [])
    print(weights, kd.suggest_terms(student, teacher))
    return found.with_terms(terms[:2], label_weight=0.0)


class Undecided(kd.BaseTeacher):
    """A teacher that predicts nothing."""

    def __call__(self, inputs, taps, scores=None):
        return {tap: ops.zeros_like(inputs[:, :10]) for tap in taps}
