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
from keras_distill import losses

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


@dataclass(frozen=True)
class Row:
    """What the contract needs to know of a method.

    Args:
        name: of the row.
        make: gives the loss; takes `reduction`.
        measure: from the teacher's and the student's tensors to how far they are apart.
        layers: tapped on each side.
        student: shapes of one sample, a shape a tap.
        teacher: the same for the teacher. Default: the student's.
        tokens: the shape of one sequence, where the loss gives one value a token.
        half: size of float16 features up to which the gradient itself fits into
            float16. Default: as for the other types.
    """

    name: str
    make: Callable
    measure: Callable
    layers: tuple[str, ...]
    student: tuple[tuple[int, ...], ...]
    teacher: tuple[tuple[int, ...], ...] = ()
    tokens: tuple[int, ...] | None = None
    half: float = 1e4
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
        return drawn if len(drawn) > 1 else drawn[0]


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
every_loss = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def gradients(loss, teacher, student, **context):
    """Give the value, and its gradients by the student's and the teacher's tensors."""
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        value = loss(teacher, student, **context)
    slopes = tape.gradient(value, [student, teacher])
    return value, tf.nest.flatten(slopes[0]), tf.nest.flatten(slopes[1])


def flat(tensors):
    parts = [np.ravel(tf.cast(x, "float64")) for x in tf.nest.flatten(tensors)]
    return np.concatenate(parts)


@every_loss
def test_equal_inputs_give_zero_and_no_gradient(row):
    tensors = row.draw()
    values, slopes, _ = gradients(row.loss(reduction=None), tensors, tensors)
    np.testing.assert_allclose(values, np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(flat(slopes), 0.0, atol=1e-6)


@every_loss
def test_different_inputs_give_one_positive_value_a_sample(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    values = row.loss(reduction=None)(teacher, student)
    assert values.shape == (4,)
    assert values.dtype == tf.float32
    assert np.all(values > 1e-4)
    mean = row.loss()(teacher, student)
    np.testing.assert_allclose(mean, np.mean(values, dtype="float64"), rtol=1e-5)


@every_loss
def test_a_sample_does_not_depend_on_its_batch(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    loss = row.loss(reduction=None)
    first = [tf.nest.map_structure(lambda x: x[:1], x) for x in (teacher, student)]
    np.testing.assert_allclose(loss(*first), loss(teacher, student)[:1], rtol=1e-4)
    assert np.isfinite(row.loss()(*first))


@pytest.mark.parametrize("row", [r for r in ROWS if r.tokens], ids=lambda r: r.name)
def test_sequences_give_one_value_a_token(row):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 4, *row.tokens)).astype("float32")
    loss = row.loss(reduction=None)
    values = loss(teacher, student)
    assert values.shape == (4, row.tokens[0])
    # A token counts as a sample does: only the last axis is summed over.
    one_by_one = [
        loss(teacher[:, i : i + 1], student[:, i : i + 1]) for i in range(row.tokens[0])
    ]
    np.testing.assert_allclose(values, np.concatenate(one_by_one, 1), rtol=1e-4)


@every_loss
def test_gradient_reaches_the_student_and_not_the_teacher(row):
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    _, slopes, teacher_slopes = gradients(row.loss(), teacher, student)
    assert all(np.abs(slope).max() > 1e-6 for slope in slopes)
    assert all(slope is None for slope in teacher_slopes)


@pytest.mark.parametrize(
    "row",
    [r for r in ROWS if r.make.match in ("all", "channels")],
    ids=lambda r: r.name,
)
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
        value = row.loss()(teacher, student if len(student) > 1 else student[0])
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
    values = np.array(row.loss(reduction=None)(teacher, student), "float64")
    expected = np.sum(np.ravel(weights) * values) / 4
    weighted = row.loss()(teacher, student, np.array(weights, "float32"))
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
        sides = signs(teacher, size, dtype, 1), signs(student, size, dtype, 2)
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
        student = tf.nest.map_structure(tf.zeros_like, student)
    value, slopes, _ = gradients(row.loss(), teacher, student)
    assert np.isfinite(value)
    assert np.all(np.isfinite(flat(slopes)))
    if zero == "both":
        assert abs(value) < 1e-6


@every_loss
def test_finite_with_one_class_or_channel(row):
    sides = [
        tf.nest.map_structure(lambda x: x[:1, ..., :1], row.draw(side, seed=seed))
        for side, seed in (("teacher", 1), ("student", 2))
    ]
    value, slopes, _ = gradients(row.loss(), *sides)
    assert np.isfinite(value)
    assert np.all(np.isfinite(flat(slopes)))


@every_loss
def test_half_precision_is_close_to_float32(row):
    """The loss computes in float32, so only the rounding of the inputs is left."""
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    whole = row.loss()(teacher, student)
    for dtype, tolerance in (("float16", 1e-2), ("bfloat16", 1e-1)):
        half = [
            tf.nest.map_structure(lambda x, dtype=dtype: tf.cast(x, dtype), side)
            for side in (teacher, student)
        ]
        np.testing.assert_allclose(row.loss()(*half), whole, rtol=tolerance)


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
    np.testing.assert_array_equal(again(teacher, student), loss(teacher, student))
    for name in row.arguments:
        assert name in loss.get_config()
    for name in loss.moving:
        ours, theirs = getattr(loss, name), getattr(again, name)
        if callable(ours):
            assert float(ours(7)) == float(theirs(7)) != float(ours(0))


@pytest.fixture(scope="module")
def replicas():
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(names[:2])


@every_loss
def test_two_replicas_equal_one(row, replicas):
    """Half a batch each: the replicas' losses and gradients add up to the whole's."""
    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    weight = tf.constant([1.0, 0.5, 2.0, 0.0])
    loss = row.loss()

    @tf.function
    def step(teacher, student, weight):
        return gradients(loss, teacher, student, sample_weight=weight)[:2]

    def share(tensor):
        return replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(tensor, 2)[context.replica_id_in_sync_group]
        )

    sides = (tf.nest.map_structure(share, side) for side in (teacher, student, weight))
    value, slopes = replicas.run(step, tuple(sides))
    whole_value, whole_slopes = step(teacher, student, weight)
    added = replicas.reduce("SUM", value, axis=None)
    np.testing.assert_allclose(added, whole_value, rtol=1e-5)
    for slope, whole in zip(slopes, whole_slopes, strict=True):
        joined = np.concatenate(replicas.experimental_local_results(slope))
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


@every_loss
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
        terms=[kd.Term(row.loss(), student=row.layers, teacher=row.layers)],
        label_weight=0.0,
    )
    distiller.compile(keras.optimizers.Adam(0.02))
    distiller.fit(images, batch_size=64, verbose=0)
    after = row.measure(target, features(student, row.layers, unseen))
    assert after < 0.6 * before
