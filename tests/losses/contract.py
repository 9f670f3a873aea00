"""The table of methods that the contract tests, one row per method.

A new method adds a row to `ROWS`, and a measure to `measures.py` if none there fits it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from keras import ops, tree
from keras.optimizers.schedules import ExponentialDecay

import keras_distill as kd
from keras_distill import losses, targets
from tests import formulas
from tests.differentiation import differentiate
from tests.losses.measures import (
    channel_angle,
    confidence_gap,
    disagreement,
    distance,
    doubt,
    enhanced_distance,
    flow_distance,
    label_disagreement,
    map_angle,
    missed_first,
    other_side,
    power_distance,
    standardized_disagreement,
    target_distance,
    uncorrelated,
    unexplained,
    unlike_channel_values,
    unlike_channels,
    unlike_pairs,
    unlike_patterns,
)


def mean_and_variance(student):
    mean, raw = ops.split(student, 2, -1)
    return ops.concatenate([mean, ops.softplus(raw) + 0.1], -1)


def at_a_temperature(student):
    return ops.concatenate([student[..., :-1], 3.0 + 0.0 * student[..., -1:]], -1)


@dataclass(frozen=True)
class Row:
    """What the contract needs to know of a method.

    Args:
        name: of the row.
        make: creates the loss; takes `reduction`.
        measure: from the teacher's and the student's tensors to their distance.
        layers: tapped on each side; empty if the method's own test shows that it
            learns.
        student: shapes of one sample, one per tap.
        teacher: the same for the teacher. Default: the student's.
        tokens: the shape of one sequence, if the loss returns one value per token.
        masked: whether it takes the mask of a sequence, or refuses one.
        half: size of float16 features up to which the gradient itself fits into
            float16. Default: as for the other dtypes.
        zero: whether equal inputs give zero and no gradient.
        alone: whether a sample's value does not depend on its batch.
        single: whether it works on the first class or channel alone.
        closer: fraction of the distance that may remain after the learning test.
        adapter: of the term in the learning test.
        prepare: from the drawn tensor to what an adapter would pass to the loss.
        arguments: of the loss.
    """

    name: str
    make: Callable
    measure: Callable
    layers: tuple[str, ...]
    student: tuple[tuple[int, ...], ...]
    teacher: tuple[tuple[int, ...], ...] = ()
    tokens: tuple[int, ...] | None = None
    masked: bool = True
    half: float = 1e4
    zero: bool = True
    alone: bool = True
    single: bool = True
    closer: float = 0.6
    adapter: str | None = "auto"
    prepare: Callable | None = None
    arguments: dict = field(default_factory=dict)

    def loss(self, **kwargs):
        return self.make(**self.arguments, **kwargs)

    def draw(self, side="student", seed=0, batch=4, dtype="float32", scale=1.0):
        """Draw normal tensors: one, or a tuple if the loss compares several."""
        rng = np.random.default_rng(seed)
        shapes = (self.teacher or self.student) if side == "teacher" else self.student
        drawn = tuple(
            tensor(scale * rng.normal(size=(batch, *shape)), dtype) for shape in shapes
        )
        drawn = drawn if len(drawn) > 1 else drawn[0]
        return self.fitted(drawn) if side == "student" else drawn

    def draw_sequences(self, side="student", length=6, seed=0, batch=4):
        """Draw sequences with the channels of the row's tensors, as arrays."""
        rng = np.random.default_rng(seed)
        shapes = (self.teacher or self.student) if side == "teacher" else self.student
        if self.tokens is not None:
            shapes = (self.tokens,)
        drawn = [rng.normal(size=(batch, length, shape[-1])) for shape in shapes]
        drawn = tuple(x.astype("float32") for x in drawn)
        return drawn if len(drawn) > 1 else drawn[0]

    def fitted(self, student):
        """Return what an adapter would pass to the loss for the student's tensor."""
        return self.prepare(student) if self.prepare else student


LOGITS, MAP = ((5,),), ((4, 4, 3),)
ROWS = [
    Row(
        "soft_target",
        losses.SoftTarget,
        disagreement,
        ("logits",),
        LOGITS,
        tokens=(3, 5),
    ),
    Row(
        "soft_target_schedule",
        losses.SoftTarget,
        disagreement,
        ("logits",),
        LOGITS,
        tokens=(3, 5),
        arguments={"temperature": ExponentialDecay(8.0, 10, 0.5)},
    ),
    Row(
        "binary_soft_target",
        losses.BinarySoftTarget,
        label_disagreement,
        ("logits",),
        LOGITS,
        tokens=(3, 5),
    ),
    Row(
        "output_regression",
        losses.OutputRegression,
        distance,
        ("logits",),
        LOGITS,
        tokens=(3, 5),
    ),
    Row(
        "logit_regression",
        losses.LogitRegression,
        distance,
        ("logits",),
        LOGITS,
        tokens=(3, 5),
    ),
    Row(
        "logit_regression_centred",
        losses.LogitRegression,
        disagreement,
        ("logits",),
        LOGITS,
        tokens=(3, 5),
        arguments={"centred": True},
    ),
    *(
        Row(name, make, disagreement, ("logits",), LOGITS, tokens=(3, 5))
        for name, make in (
            ("reverse_soft_target", losses.ReverseSoftTarget),
            ("jensen_shannon", losses.JensenShannon),
            ("decoupled_target", losses.DecoupledTarget),
        )
    ),
    *(
        Row(
            f"standardized_{loss.name}",
            losses.StandardizedLogits,
            standardized_disagreement,
            ("logits",),
            LOGITS,
            tokens=(3, 5),
            arguments={"loss": loss},
        )
        for loss in (losses.SoftTarget(2.0), losses.DecoupledTarget(2.0))
    ),
    Row(
        "scale_decoupled_logits",
        losses.ScaleDecoupledLogits,
        disagreement,
        (),
        ((4, 4, 3), (3,)),
        teacher=((8, 6, 3), (3,)),
        zero=False,
        masked=False,
        arguments={"loss": losses.SoftTarget(2.0), "scales": (1, 2)},
    ),
    *(
        Row(
            f"soft_target_{name}",
            losses.SoftTarget,
            target_distance(formula),
            ("logits",),
            LOGITS,
            tokens=(3, 5),
            zero=False,
            single=name not in ("super_classes", "class_similarity"),
            closer=0.7,
            arguments={"target": target},
        )
        for name, target, formula in (
            ("top_k", targets.TopK(2), lambda z: formulas.top_k(z, 2, 4.0)),
            (
                "true_class",
                targets.TrueClass(),
                lambda z: formulas.true_class(z, z.argmax(-1), 4.0),
            ),
            (
                "power_transform",
                targets.PowerTransform(0.3),
                lambda z: formulas.power_transform(z, 0.3, 4.0),
            ),
            ("uniform", targets.Uniform(), lambda z: np.full(z.shape, 0.2)),
            ("hard_label", targets.HardLabel(), lambda z: np.eye(5)[z.argmax(-1)]),
            (
                "virtual_teacher",
                targets.VirtualTeacher(0.99),
                lambda z: formulas.virtual_teacher(0.99, z.argmax(-1), 5, 4.0),
            ),
            (
                "super_classes",
                targets.SuperClasses([0, 0, 1, 1, 1]),
                lambda z: formulas.super_classes(
                    [0, 0, 1, 1, 1], (0.95, 0.02, 0.001), z.argmax(-1)
                ),
            ),
            (
                "class_similarity",
                targets.ClassSimilarity(np.tri(5)),
                lambda z: formulas.class_similarity(np.tri(5), z.argmax(-1), 0.3, 0.5),
            ),
        )
    ),
    Row(
        "power_weighted_target",
        losses.PowerWeightedTarget,
        power_distance(0.3),
        ("logits",),
        LOGITS,
        tokens=(3, 5),
        zero=False,
        closer=0.7,
        arguments={"exponent": 0.3},
    ),
    Row(
        "weighted_soft_target",
        losses.WeightedSoftTarget,
        disagreement,
        ("logits",),
        LOGITS,
        tokens=(3, 5),
    ),
    Row(
        "soft_target_permuted",
        losses.SoftTarget,
        confidence_gap,
        ("logits",),
        LOGITS,
        zero=False,
        closer=0.7,
        arguments={"temperature": 1.0, "target": targets.Permuted()},
    ),
    *(
        Row(
            f"vocabulary_soft_target{name}",
            losses.VocabularySoftTarget,
            distance,
            (),
            ((4,),),
            tokens=(3, 4),
            zero=zero,
            arguments=arguments,
        )
        for name, zero, arguments in (
            ("", True, {"chunk": 2}),
            ("_labels", False, {"label_weight": 0.5}),
        )
    ),
    Row(
        "prediction_correlation",
        losses.PredictionCorrelation,
        uncorrelated,
        ("logits",),
        LOGITS,
        alone=False,
    ),
    Row(
        "multi_level_logits",
        losses.MultiLevelLogits,
        disagreement,
        ("logits",),
        LOGITS,
        alone=False,
        arguments={"temperatures": (1.0, 3.0)},
    ),
    Row(
        "curriculum_temperature",
        losses.CurriculumTemperature,
        disagreement,
        ("logits",),
        ((6,),),
        teacher=LOGITS,
        zero=False,
        single=False,
        prepare=at_a_temperature,
        arguments={"steps": 5},
    ),
    Row(
        "enhanced_target",
        losses.EnhancedTarget,
        enhanced_distance(1.5),
        ("logits",),
        LOGITS,
        tokens=(3, 5),
        zero=False,
        single=False,
        arguments={"exponent": 1.5},
    ),
    Row(
        "confidence_weighted_label",
        losses.ConfidenceWeightedLabel,
        doubt,
        ("logits",),
        LOGITS,
        zero=False,
        alone=False,
    ),
    Row(
        "ranking",
        losses.Ranking,
        missed_first,
        ("logits",),
        LOGITS,
        tokens=(3, 5),
        zero=False,
        single=False,
        closer=0.7,
        arguments={"items": 2},
    ),
    *(
        Row(
            name,
            make,
            unlike_pairs,
            ("stack2",),
            MAP,
            teacher=((2, 2, 6),),
            alone=False,
        )
        for name, make in (
            ("distance_relation", losses.DistanceRelation),
            ("angle_relation", losses.AngleRelation),
            ("similarity_matrix", losses.SimilarityMatrix),
            ("correlation_congruence", losses.CorrelationCongruence),
            ("conditional_probability", losses.ConditionalProbability),
            ("soft_rank", losses.SoftRank),
        )
    ),
    Row(
        "voted_triplet",
        losses.VotedTriplet,
        unlike_pairs,
        ("stack2",),
        MAP,
        teacher=((2, 2, 6),),
        zero=False,
        alone=False,
        arguments={"margin": 0.3},
    ),
    Row(
        "hard_rank",
        losses.HardRank,
        unlike_pairs,
        ("stack2",),
        MAP,
        teacher=((2, 2, 6),),
        zero=False,
        alone=False,
        arguments={"items": 20},
    ),
    *(
        Row(name, make, unlike_pairs, (), MAP, zero=False, alone=False, single=False)
        for name, make in (
            ("class_triplet", losses.ClassTriplet),
            ("verification", losses.Verification),
        )
    ),
    Row("full_activation", losses.FullActivation, distance, ("stack2",), MAP),
    Row(
        "neuron_selectivity",
        losses.NeuronSelectivity,
        unlike_patterns,
        ("stack2",),
        MAP,
        teacher=((4, 4, 6),),
    ),
    Row(
        "activation_boundary",
        losses.ActivationBoundary,
        other_side,
        ("stack2",),
        MAP,
        zero=False,
        adapter=None,
        arguments={"margin": 0.5},
    ),
    Row("margin_activation", losses.MarginActivation, other_side, (), MAP, zero=False),
    Row(
        "variational_information",
        losses.VariationalInformation,
        unexplained,
        ("stack2",),
        ((4, 4, 6),),
        teacher=MAP,
        zero=False,
        single=False,
        closer=0.8,
        # The gradient by a variance is the squared gap over its square.
        half=10.0,
        prepare=mean_and_variance,
    ),
    *(
        Row(name, make, distance, (), MAP, masked=False)
        for name, make in (
            ("gradient_attention", losses.GradientAttention),
            ("jacobian", losses.Jacobian),
        )
    ),
    Row(
        "flip_symmetry",
        losses.FlipSymmetry,
        distance,
        (),
        ((4, 4, 3), (4, 4, 3)),
        zero=False,
        masked=False,
    ),
    Row(
        "review",
        losses.Review,
        flow_distance,
        (),
        ((8, 8, 3), (4, 4, 2)),
        masked=False,
        arguments={"levels": 2},
    ),
    Row(
        "factor_transfer",
        losses.FactorTransfer,
        unexplained,
        ("stack2",),
        MAP,
        closer=0.8,
        arguments={"paraphraser": kd.adapters.Paraphraser(1.0, trainable=False)},
    ),
    Row(
        "channel_correlation",
        losses.ChannelCorrelation,
        unlike_channels,
        ("stack2",),
        MAP,
    ),
    Row(
        "cosine_distance",
        losses.CosineDistance,
        channel_angle,
        ("stack2",),
        MAP,
        tokens=(3, 5),
    ),
    Row(
        "normalized_hint",
        losses.NormalizedHint,
        unlike_channel_values,
        ("stack2",),
        MAP,
        zero=False,
        alone=False,
    ),
    Row(
        "orthogonal_hint",
        losses.OrthogonalHint,
        unexplained,
        ("stack2",),
        MAP,
        zero=False,
        alone=False,
        closer=0.8,
    ),
    Row("hint", losses.Hint, distance, ("stack2",), MAP, tokens=(3, 5)),
    Row(
        "attention_sum",
        losses.AttentionMap,
        map_angle(lambda a: a.sum(-1)),
        ("stack2",),
        MAP,
        teacher=((4, 4, 6),),
        arguments={"power": 1},
    ),
    Row(
        "attention_power",
        losses.AttentionMap,
        map_angle(lambda a: (a**2).sum(-1)),
        ("stack2",),
        MAP,
        teacher=((4, 4, 6),),
    ),
    Row(
        "attention_max",
        losses.AttentionMap,
        map_angle(lambda a: a.max(-1)),
        ("stack2",),
        MAP,
        teacher=((4, 4, 6),),
        arguments={"power": 1, "mapping": "max"},
    ),
    Row(
        "singular_flow",
        losses.SingularFlow,
        flow_distance,
        (),
        ((4, 4, 3), (4, 4, 2)),
        teacher=((2, 2, 3), (2, 2, 2)),
    ),
    Row(
        "flow_matrix",
        losses.FlowMatrix,
        flow_distance,
        ("stack1", "stack2"),
        ((4, 4, 3), (4, 4, 2)),
        teacher=((2, 2, 3), (2, 2, 2)),
        # The gradient grows with the third power of the features.
        half=10.0,
    ),
]


def tensor(array, dtype="float32"):
    """Convert an array, rounded to float32 first, to a tensor of the backend."""
    return ops.cast(np.asarray(array, "float32"), dtype)


def compare(loss, teacher, student, sample_weight=None, **masks):
    """Call a loss with all that it may need; labels follow from the teacher's tensor.

    For a loss that does not use the teacher, every other sample is of the same class.
    """
    first = ops.convert_to_tensor(tree.flatten(teacher)[0])
    channels = first.shape[-1]
    count = ops.shape(first)[0]
    if len(first.shape) > 3:
        first = ops.reshape(first, (count, -1))
    ids = kd.strategies.local_rows(count)
    finite = ops.where(first == -np.inf, np.inf, first)
    labels = ops.argmin(finite, -1) if loss.compares_teacher else ids % 2
    context = {"labels": labels, "step": 3, "sample_ids": ids, **masks}
    context["teacher_norm"] = ops.linspace(0.5, 1.5, channels), ops.zeros(channels)
    kernel = tensor(np.random.default_rng(0).normal(size=(channels, 7)))
    context["teacher_head"] = context["student_head"] = kernel, ops.arange(7.0)
    return loss(teacher, student, sample_weight, **context)


def gradients(loss, teacher, student, sample_weight=None, **masks):
    """Return the value and its gradients by the student's and the teacher's tensors."""
    value, grads = differentiate(
        lambda student, teacher: compare(
            loss, teacher, student, sample_weight, **masks
        ),
        student,
        teacher,
    )
    return value, *map(tree.flatten, grads)
