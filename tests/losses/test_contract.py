"""The contract that every distillation loss is put through, a row a method.

A new method is a new row in `ROWS`, and nothing else in this file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers.schedules import ExponentialDecay

import keras_distill as kd
from keras_distill import losses, targets
from tests.targets import formulas

# What the methods transfer, measured in NumPy in another way than the losses do.


def disagreement(teacher, student):
    """Total variation distance of the predictions."""
    p, q = (np.exp(z - z.max(-1, keepdims=True)) for z in (teacher, student))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return 0.5 * np.abs(p - q).sum(-1).mean()


def distance(teacher, student):
    """Mean absolute difference."""
    return np.abs(teacher - student).mean()


def map_angle(fold):
    """One minus the cosine of the attention maps that `fold` makes of features."""

    def measure(teacher, student):
        a, b = (fold(np.abs(f)).reshape(len(f), -1) for f in (teacher, student))
        norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        return (1 - (a * b).sum(-1) / norms).mean()

    return measure


def flow_distance(teacher, student):
    """Mean absolute difference of the correlations between two layers."""
    flows = [
        np.einsum("bijm,bijn->bmn", first, second) / first[0, :, :, 0].size
        for first, second in (teacher, student)
    ]
    return np.abs(flows[0] - flows[1]).mean()


def target_distance(formula):
    """Total variation distance of the prediction at T = 4 from a target in NumPy."""

    def measure(teacher, student):
        q = formulas.softmax(student / 4.0)
        return 0.5 * np.abs(formula(teacher) - q).sum(-1).mean()

    return measure


def uncorrelated(teacher, student):
    """One minus Pearson's correlation of the predictions over the classes."""
    sides = formulas.softmax(teacher), formulas.softmax(student)
    return 1 - np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(*sides, strict=True)])


def unlike_pairs(teacher, student):
    """One minus the correlation of all distances between samples."""
    sides = [f.reshape(len(f), -1) for f in (teacher, student)]
    t, s = (np.linalg.norm(f[:, None] - f[None], axis=-1).ravel() for f in sides)
    return 1 - np.corrcoef(t, s)[0, 1]


def other_side(teacher, student):
    """Share of neurons that lie on the other side of zero."""
    return np.mean((teacher > 0) != (student > 0))


def unexplained(teacher, student):
    """Share of the teacher's variance that no linear map of the student's explains."""
    t, s = (f.reshape(-1, f.shape[-1]) for f in (teacher, student))
    s = np.concatenate([s, np.ones((len(s), 1))], -1)
    left = t - s @ np.linalg.lstsq(s, t, rcond=None)[0]
    return (left**2).sum() / ((t - t.mean(0)) ** 2).sum()


def unlike_patterns(teacher, student):
    """Distance of the mean products of channel patterns, place by place."""

    def products(f):
        flat = f.reshape(len(f), -1, f.shape[-1])
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        return np.einsum("bpc,bqc->bpq", flat, flat) / flat.shape[-1]

    return np.abs(products(teacher) - products(student)).mean()


def mean_and_variance(student):
    mean, raw = tf.split(student, 2, -1)
    return tf.concat([mean, tf.nn.softplus(raw) + 0.1], -1)


def doubt(teacher, student):
    """How far the student's probability of the teacher's class is from one."""
    top = teacher.argmax(-1)
    return 1 - formulas.softmax(student)[np.arange(len(top)), top].mean()


def confidence_gap(teacher, student):
    """Difference of the probabilities of the teacher's class."""
    rows, top = np.arange(len(teacher)), teacher.argmax(-1)
    p, q = formulas.softmax(teacher), formulas.softmax(student)
    return np.abs(p[rows, top] - q[rows, top]).mean()


def missed_first(teacher, student):
    """Share of the teacher's first two classes that are not the student's."""
    first, own = (np.argsort(-z)[:, :2] for z in (teacher, student))
    return 1 - np.mean(
        [len(set(a) & set(b)) / 2 for a, b in zip(first, own, strict=True)]
    )


@dataclass(frozen=True)
class Row:
    """What the contract needs to know of a method.

    Args:
        name: of the row.
        make: gives the loss; takes `reduction`.
        measure: from the teacher's and the student's tensors to how far they are apart.
        layers: tapped on each side; none where the method's own test shows that it
            learns.
        student: shapes of one sample, a shape a tap.
        teacher: the same for the teacher. Default: the student's.
        tokens: the shape of one sequence, where the loss gives one value a token.
        half: size of float16 features up to which the gradient itself fits into
            float16. Default: as for the other types.
        zero: whether equal inputs give zero and no gradient.
        alone: whether a sample's value does not depend on its batch.
        single: whether it works on the first class or channel alone.
        closer: after the learning test, the share that is left of the distance.
        adapter: of the term in the learning test.
        prepare: turns what is drawn into what an adapter would give the loss.
        arguments: of the loss.
    """

    name: str
    make: Callable
    measure: Callable
    layers: tuple[str, ...]
    student: tuple[tuple[int, ...], ...]
    teacher: tuple[tuple[int, ...], ...] = ()
    tokens: tuple[int, ...] | None = None
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
        """Draw normal tensors: one, or a tuple where the loss compares several."""
        rng = np.random.default_rng(seed)
        shapes = (self.teacher or self.student) if side == "teacher" else self.student
        drawn = tuple(
            tf.constant(scale * rng.normal(size=(batch, *shape)), dtype)
            for shape in shapes
        )
        drawn = drawn if len(drawn) > 1 else drawn[0]
        return self.fitted(drawn) if side == "student" else drawn

    def fitted(self, student):
        """Give what the loss would see, once an adapter made it of the student's."""
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
            ("uniform", targets.Uniform(), lambda z: np.full(z.shape, 0.2)),
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
        "soft_target_permuted",
        losses.SoftTarget,
        confidence_gap,
        ("logits",),
        LOGITS,
        zero=False,
        closer=0.7,
        arguments={"temperature": 1.0, "target": targets.Permuted()},
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
    Row(
        "full_activation",
        losses.FullActivation,
        distance,
        ("stack2",),
        MAP,
    ),
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
    Row(
        "margin_activation",
        losses.MarginActivation,
        other_side,
        (),
        MAP,
        zero=False,
    ),
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
        Row(name, make, distance, (), MAP)
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
    ),
    Row(
        "review",
        losses.Review,
        flow_distance,
        (),
        ((8, 8, 3), (4, 4, 2)),
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


def rows(condition):
    """Run a test for the rows of which a condition holds."""
    chosen = [row for row in ROWS if condition(row)]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


every_loss = rows(lambda row: True)


def compare(loss, teacher, student, sample_weight=None):
    """Call a loss with all that it may need; labels follow from the teacher's tensor.

    A loss that asks nothing of the teacher has every other sample of the same class.
    """
    first = tf.convert_to_tensor(tf.nest.flatten(teacher)[0])
    if len(first.shape) > 3:
        first = tf.reshape(first, (first.shape[0], -1))
    ids = tf.range(first.shape[0])
    labels = tf.argmin(first, -1) if loss.compares_teacher else ids % 2
    context = {"labels": labels, "step": 3, "sample_ids": ids}
    channels = tf.nest.flatten(teacher)[0].shape[-1]
    context["teacher_norm"] = tf.linspace(0.5, 1.5, channels), tf.zeros(channels)
    return loss(teacher, student, sample_weight, **context)


def gradients(loss, teacher, student, sample_weight=None):
    """Give the value, and its gradients by the student's and the teacher's tensors."""
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        value = compare(loss, teacher, student, sample_weight)
    slopes = tape.gradient(value, [student, teacher])
    return value, tf.nest.flatten(slopes[0]), tf.nest.flatten(slopes[1])


def flat(tensors):
    parts = [np.ravel(tf.cast(x, "float64")) for x in tf.nest.flatten(tensors)]
    return np.concatenate(parts)


@rows(lambda row: row.zero)
def test_equal_inputs_give_zero_and_no_gradient(row):
    tensors = row.draw()
    values, slopes, _ = gradients(row.loss(reduction=None), tensors, tensors)
    np.testing.assert_allclose(values, np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(flat(slopes), 0.0, atol=1e-6)


@every_loss
def test_different_inputs_give_one_positive_value_a_sample(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    values = compare(row.loss(reduction=None), teacher, student)
    assert values.shape == (4,)
    assert values.dtype == tf.float32
    assert np.all(values > 1e-4)
    mean = compare(row.loss(), teacher, student)
    np.testing.assert_allclose(mean, np.mean(values, dtype="float64"), rtol=1e-5)


@rows(lambda row: row.alone)
def test_a_sample_does_not_depend_on_its_batch(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    loss = row.loss(reduction=None)
    first = [tf.nest.map_structure(lambda x: x[:1], x) for x in (teacher, student)]
    whole = compare(loss, teacher, student)
    np.testing.assert_allclose(compare(loss, *first), whole[:1], rtol=1e-4)
    assert np.isfinite(compare(row.loss(), *first))


@rows(lambda row: row.tokens)
def test_sequences_give_one_value_a_token(row):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 4, *row.tokens)).astype("float32")
    loss = row.loss(reduction=None)
    values = compare(loss, teacher, student)
    assert values.shape == (4, row.tokens[0])
    # A token counts as a sample does: only the last axis is summed over.
    one_by_one = [
        compare(loss, teacher[:, i : i + 1], student[:, i : i + 1])
        for i in range(row.tokens[0])
    ]
    np.testing.assert_allclose(values, np.concatenate(one_by_one, 1), rtol=1e-4)


@every_loss
def test_gradient_reaches_the_student_and_not_the_teacher(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    _, slopes, teacher_slopes = gradients(row.loss(), teacher, student)
    assert all(np.abs(slope).max() > 1e-6 for slope in slopes)
    assert all(slope is None for slope in teacher_slopes)


@rows(lambda row: row.make.match in ("all", "channels"))
def test_gradient_reaches_the_adapters(row):
    """Narrower students learn through a projection, which learns as well."""
    teacher = row.draw("teacher", seed=1)
    narrow = [x[..., :1] for x in tf.nest.flatten(row.draw(seed=2))]
    adapters = [
        kd.adapters.infer(own.shape, other.shape, row.make.match)[0]
        for own, other in zip(narrow, tf.nest.flatten(teacher), strict=True)
    ]
    with tf.GradientTape() as tape:
        student = tuple(a(x) for a, x in zip(adapters, narrow, strict=True))
        student = student if len(student) > 1 else student[0]
        value = compare(row.loss(), teacher, student)
    kernels = [adapter.trainable_variables[0] for adapter in adapters]
    for slope in tape.gradient(value, [kernel.value for kernel in kernels]):
        assert np.abs(slope).max() > 1e-6


@every_loss
@pytest.mark.parametrize(
    "weights", [[1, 1, 1, 1], [2, 0.5, 0, 3], [[2], [0], [1], [4]]]
)
def test_sample_weights_follow_keras(row, weights):
    """The mean is sum_i w_i l_i / B: the weights do not share out one whole."""
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    values = np.array(compare(row.loss(reduction=None), teacher, student), "float64")
    expected = np.sum(np.ravel(weights) * values) / 4
    weighted = compare(row.loss(), teacher, student, np.array(weights, "float32"))
    np.testing.assert_allclose(weighted, expected, rtol=1e-5)


def signs(tensors, size, dtype, seed):
    """Give tensors of the same shapes whose entries are plus or minus `size`."""
    rng = np.random.default_rng(seed)
    return tf.nest.map_structure(
        lambda x: tf.constant(size * rng.choice([-1.0, 1.0], x.shape), dtype), tensors
    )


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_finite_at_large_inputs(row, dtype):
    teacher, student = row.draw("teacher"), row.draw()
    for size in (1e4, row.half if dtype == "float16" else 1e4):
        sides = (
            signs(teacher, size, dtype, 1),
            row.fitted(signs(student, size, dtype, 2)),
        )
        value, slopes, _ = gradients(row.loss(), *sides)
        assert value.dtype == tf.float32
        assert np.isfinite(value)
    assert np.all(np.isfinite(flat(slopes)))
    assert all(slope.dtype == dtype for slope in slopes)


@every_loss
@pytest.mark.parametrize("zero", ["teacher", "student", "both"])
def test_finite_at_zero_inputs(row, zero):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    if zero in ("teacher", "both"):
        teacher = tf.nest.map_structure(tf.zeros_like, teacher)
    if zero in ("student", "both"):
        student = row.fitted(tf.nest.map_structure(tf.zeros_like, student))
    value, slopes, _ = gradients(row.loss(), teacher, student)
    assert np.isfinite(value)
    assert np.all(np.isfinite(flat(slopes)))
    if zero == "both" and row.zero:
        assert abs(value) < 1e-6


@rows(lambda row: row.single)
def test_finite_with_one_class_or_channel(row):
    sides = [
        tf.nest.map_structure(lambda x: x[:1, ..., :1], row.draw(side, seed=seed))
        for side, seed in (("teacher", 1), ("student", 2))
    ]
    value, slopes, _ = gradients(row.loss(), *sides)
    assert np.isfinite(value)
    assert np.all(np.isfinite(flat(slopes)))


@rows(lambda row: row.student == LOGITS and row.single)
def test_finite_with_many_classes(row):
    rng = np.random.default_rng(0)
    teacher, student = (
        tf.constant(5.0 * rng.normal(size=(2, 100_000)), "float32") for _ in range(2)
    )
    value, slopes, _ = gradients(row.loss(), teacher, student)
    assert np.isfinite(value)
    assert np.all(np.isfinite(flat(slopes)))


@every_loss
def test_half_precision_is_close_to_float32(row):
    """The loss computes in float32, so only the rounding of the inputs is left."""
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    whole = compare(row.loss(), teacher, student)
    for dtype, tolerance in (("float16", 1e-2), ("bfloat16", 1e-1)):
        half = [
            tf.nest.map_structure(lambda x, dtype=dtype: tf.cast(x, dtype), side)
            for side in (teacher, student)
        ]
        np.testing.assert_allclose(compare(row.loss(), *half), whole, rtol=tolerance)


@every_loss
@pytest.mark.parametrize("jit_compile", [False, True], ids=["traced", "jit"])
def test_eager_equals_traced(row, jit_compile):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    loss, weight = row.loss(), tf.constant([1.0, 0.0, 2.0, 0.5])

    def step(teacher, student):
        return gradients(loss, teacher, student, sample_weight=weight)[:2]

    value, slopes = step(teacher, student)
    traced = tf.function(step, jit_compile=jit_compile)(teacher, student)
    np.testing.assert_allclose(traced[0], value, rtol=1e-5)
    np.testing.assert_allclose(flat(traced[1]), flat(slopes), rtol=1e-4, atol=1e-6)


@every_loss
@pytest.mark.parametrize("way", ["config", "keras"])
def test_survives_the_config(row, way):
    loss = row.loss(name="mine", reduction=None)
    if way == "config":
        again = type(loss).from_config(loss.get_config())
    else:
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(loss)
        )
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert (again.name, again.reduction) == ("mine", None)
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    np.testing.assert_array_equal(
        compare(again, teacher, student), compare(loss, teacher, student)
    )
    for name in row.arguments:
        assert name in loss.get_config()
    for name in loss.moving:
        ours, theirs = getattr(loss, name), getattr(again, name)
        if callable(ours):
            assert float(ours(7)) == float(theirs(7)) != float(ours(0))


@every_loss
def test_two_replicas_equal_one(row, two_replicas):
    """Half a batch each: the replicas' losses and gradients add up to the whole's."""
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    weight = tf.constant([1.0, 0.5, 2.0, 0.0])
    loss = row.loss()

    @tf.function
    def step(teacher, student, weight):
        return gradients(loss, teacher, student, sample_weight=weight)[:2]

    def share(tensor):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(tensor, 2)[context.replica_id_in_sync_group]
        )

    sides = (tf.nest.map_structure(share, side) for side in (teacher, student, weight))
    value, slopes = two_replicas.run(step, tuple(sides))
    whole_value, whole_slopes = step(teacher, student, weight)
    added = two_replicas.reduce("SUM", value, axis=None)
    np.testing.assert_allclose(added, whole_value, rtol=1e-5)
    for slope, whole in zip(slopes, whole_slopes, strict=True):
        joined = np.concatenate(two_replicas.experimental_local_results(slope))
        np.testing.assert_allclose(joined, whole, rtol=1e-4, atol=1e-7)


def tiny_net(seed, filters=(3, 4), name="net"):
    """Build a net with `stack1`, `stack2` and `logits` whose seed is its knowledge."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((6, 6, 1))
    for i, width in enumerate(filters, start=1):
        x = keras.layers.Conv2D(
            width, 3, padding="same", activation="tanh", name=f"stack{i}"
        )(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="logits")(x), name=name)


def features(net, layers, images):
    outputs = [net.get_layer(layer).output for layer in layers]
    tensors = keras.tree.flatten(keras.Model(net.input, outputs)(images))
    tensors = [np.asarray(tensor, "float64") for tensor in tensors]
    return tensors if len(tensors) > 1 else tensors[0]


@rows(lambda row: row.layers)
def test_the_student_comes_closer_to_what_is_transferred(row):
    """A few steps on this term alone, judged on images that were not trained on."""
    teacher, student = tiny_net(1, name="teacher"), tiny_net(2, name="student")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40 * 64, 6, 6, 1)).astype("float32")
    unseen = rng.normal(size=(64, 6, 6, 1)).astype("float32")
    target = features(teacher, row.layers, unseen)
    before = row.measure(target, features(student, row.layers, unseen))
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(row.loss(), row.layers, row.layers, adapter=row.adapter)],
        label_weight=0.0,
    )
    distiller.compile(keras.optimizers.Adam(0.02))
    labels = np.argmax(teacher.predict(images, verbose=0), -1)
    distiller.fit(images, labels, batch_size=64, verbose=0)
    after = row.measure(target, features(student, row.layers, unseen))
    assert after < row.closer * before
