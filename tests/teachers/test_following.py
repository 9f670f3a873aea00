"""A mean teacher against its recurrence."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import linear, points, weights
from tests.nets import conv_pair
from tests.ordering import unordered_accesses

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Weights(keras.callbacks.Callback):
    """Record the student's weights before each step."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_begin(self, batch, logs=None):
        self.weights.append(weights(self.model.student))


def make(decay, seed=2, **how):
    keras.utils.set_random_seed(seed)
    student = linear("student")
    teacher = kd.MeanTeacher(student, decay)
    distiller = kd.Distiller(student, teacher)
    distiller.compile(keras.optimizers.Adam(0.05), CROSS_ENTROPY, **how)
    return distiller, teacher


@pytest.mark.parametrize(
    ("decay", "how"),
    [(0.0, {}), (0.4, {}), (0.999, {}), (0.4, {"jit_compile": True})],
    ids=str,
)
def test_its_weights_follow_the_recurrence(decay, how):
    distiller, teacher = make(decay, **how)
    mean, kept = weights(distiller.student), Weights()
    distiller.fit(*points(), batch_size=4, epochs=3, verbose=0, callbacks=[kept])
    assert len(kept.weights) == 9
    for step, student in enumerate(kept.weights):
        d = min(decay, (1 + step) / (10 + step))
        mean = [d * a + (1 - d) * b for a, b in zip(mean, student, strict=True)]
    for found, expected in zip(weights(teacher.model), mean, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


COPYING = {
    "mean teacher": lambda one, other: kd.Distiller(one, kd.MeanTeacher(one)),
    "mutual": lambda one, other: kd.MutualDistiller([one, other], refresh=2),
}
# The gradient of the last with respect to the bias depends on the inputs' shape alone.
TRAINED = {
    "conv": (conv_pair, CROSS_ENTROPY),
    "linear": (lambda: (linear("one"), linear("other")), CROSS_ENTROPY),
    "mean": (
        lambda: (linear("one"), linear("other")),
        lambda y, z: -keras.ops.mean(z, -1),
    ),
}


@pytest.mark.parametrize("of", COPYING.values(), ids=COPYING)
@pytest.mark.parametrize(("nets", "loss"), TRAINED.values(), ids=TRAINED)
def test_copies_read_weights_before_those_are_updated(nets, loss, of):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("The order of other backends is that of the code.")
    one, other = nets()
    distiller = of(one, other)
    distiller.compile("adam", loss)
    x = np.zeros((6, *one.input_shape[1:]), "float32")
    y = np.zeros(6, "int32")
    fit = lambda: distiller.fit(x, y, batch_size=3, verbose=0)  # noqa: E731
    assert not unordered_accesses(fit)


def test_parts_of_the_inputs_may_be_none():
    student = linear("student")
    teacher = kd.MeanTeacher(student)
    distiller = kd.Distiller(student, teacher, student_inputs="a", teacher_inputs="a")
    distiller.compile("sgd", CROSS_ENTROPY)
    x, y = points(8)
    assert np.isfinite(distiller.train_on_batch({"a": x, "b": None}, y)).all()


def test_it_is_not_trained_and_is_the_same_on_replicas(two_replicas):
    distiller, teacher = make(0.9)
    assert len(distiller.trainable_variables) == 2
    distiller.fit(*points(), batch_size=4, shuffle=False, epochs=2, verbose=0)
    with two_replicas.scope():
        other, on_two = make(0.9)
        other.fit(*points(), batch_size=4, shuffle=False, epochs=2, verbose=0)
    for a, b in zip(weights(teacher.model), weights(on_two.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.long
def test_its_moving_means_are_the_same_on_replicas(two_replicas):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype("float32")
    labels = rng.integers(0, 3, 32).astype("int32")
    with two_replicas.scope():
        student, _ = conv_pair()
        teacher = kd.MeanTeacher(student, 0.9)
        distiller = kd.Distiller(student, teacher)
        distiller.compile("sgd", CROSS_ENTROPY)
        distiller.fit(x, labels, batch_size=16, verbose=0)
    moved = teacher.model.get_layer("norm2").moving_mean
    one, other = (np.array(part) for part in moved.value.values)
    assert np.abs(one).max() > 0
    np.testing.assert_array_equal(one, other)


def test_penalties_are_the_students_alone():
    """The mean teacher is a copy, and so has the same penalties."""
    x = keras.Input((4,))
    penalty = keras.regularizers.L2(0.1)
    y = keras.layers.Dense(3, activity_regularizer=penalty, kernel_regularizer=penalty)
    layer = y
    student = keras.Model(x, y(x))
    kernel = np.array(layer.kernel, "float64")
    distiller = kd.Distiller(student, kd.MeanTeacher(student, 0.9))
    distiller.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY)
    points_x, labels = points()
    outputs = points_x @ kernel
    logs = distiller.fit(points_x, labels, batch_size=12, verbose=0).history
    surprise = -np.log(softmax(outputs)[np.arange(12), labels]).mean()
    expected = 0.1 * (kernel**2).sum() + 0.1 * (outputs**2).sum() / 12
    assert logs["soft_target"][0] == pytest.approx(0.0, abs=1e-5)
    assert logs["loss"][0] == pytest.approx(surprise + expected, rel=1e-4)


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_stopped_run_resumes(tmp_path):
    def run(*callbacks):
        distiller, teacher = make(0.9)
        distiller.fit(
            *points(),
            batch_size=4,
            epochs=4,
            shuffle=False,
            verbose=0,
            callbacks=list(callbacks),
        )
        return weights(distiller.student) + weights(teacher.model)

    expected = run()
    backup = lambda: keras.callbacks.BackupAndRestore(tmp_path / "b")  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        run(backup(), Stop())
    for a, b in zip(run(backup()), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_input():
    with pytest.raises(ValueError, match="below 1"):
        kd.MeanTeacher(linear("a"), 1.0)
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="not built"):
        kd.MeanTeacher(model)


def test_another_optimizer_does_not_reset_the_mean():
    distiller, teacher = make(0.99)
    distiller.fit(*points(), batch_size=4, epochs=10, verbose=0)
    before, student = weights(teacher.model)[0], weights(distiller.student)[0]
    distiller.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY)
    distiller.fit(*points(), batch_size=12, verbose=0)
    # The thirty-first step.
    d = 31 / 40
    np.testing.assert_allclose(
        weights(teacher.model)[0], d * before + (1 - d) * student, atol=1e-6
    )


def dense(dtype):
    inputs = keras.Input((4,))
    first = keras.layers.Dense(3, dtype=dtype, name="first")
    last = keras.layers.Dense(3, dtype="float32", name="last")
    return keras.Model(inputs, last(first(inputs)), name="student"), first


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_trained_variables_of_half_precision_are_refused(dtype):
    """0.999 is 1 in bfloat16, and steps below half a unit of float16 are none."""
    student, _ = dense(dtype)
    message = rf"'student' trains variables in {dtype} \(first/kernel.*'mixed_{dtype}'"
    with pytest.raises(ValueError, match=message):
        kd.MeanTeacher(student)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_that_is_not_trained_stays_and_the_rest_moves(dtype):
    student, first = dense(dtype)
    first.trainable = False
    teacher = kd.MeanTeacher(student, 0.9)
    before = weights(teacher.model)
    student.get_layer("last").bias.assign([1.0, 2.0, -1.0])
    for step in range(200):
        teacher.follow(step)
    after = weights(teacher.model)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(after[3], [1.0, 2.0, -1.0], atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_of_mixed_policies_it_moves(dtype):
    student, first = dense(dtype)
    teacher = kd.MeanTeacher(student, 0.9)
    first.bias.assign([1.0, 2.0, -1.0])
    for step in range(200):
        teacher.follow(step)
    np.testing.assert_allclose(weights(teacher.model)[1], [1.0, 2.0, -1.0], atol=1e-5)
