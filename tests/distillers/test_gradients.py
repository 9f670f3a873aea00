"""Losses on gradients by the input: inside fit, against finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_distill as kd
from keras_distill import taps
from keras_distill.distillers.gradient_scores import gradient_scores
from tests.nets import conv_pair

GRADIENT_ATTENTION = kd.losses.GradientAttention, kd.Tap.input_gradient()
JACOBIAN = kd.losses.Jacobian, kd.Tap.input_gradient("first_class")
both = pytest.mark.parametrize(("loss", "tap"), [GRADIENT_ATTENTION, JACOBIAN])


def smooth_net(seed, name):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((3, 2, 1))
    x = layers.Dense(5, activation="tanh", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, name="logits")(x), name=name)


def logits(model, x):
    """Give the logits in NumPy, float64."""
    w1, b1, w2, b2 = (np.array(w, "float64") for w in model.get_weights())
    return np.tanh(x.reshape(len(x), -1) @ w1 + b1) @ w2 + b2


def slopes(score, x, step=1e-5):
    """Differentiate a score per sample by each pixel, `(B, pixels)`."""
    found = np.zeros((len(x), x[0].size))
    for pixel in range(x[0].size):
        nudge = np.zeros(x[0].size)
        nudge[pixel] = step
        nudge = nudge.reshape(x[0].shape)
        found[:, pixel] = (score(x + nudge) - score(x - nudge)) / (2 * step)
    return found


def expected(loss, student, teacher, x, y):
    rows = np.arange(len(x))
    if loss is kd.losses.GradientAttention:

        def label_loss(model):
            def score(x):
                z = logits(model, x)
                return np.log(np.exp(z).sum(-1)) - z[rows, y]

            return score

        gap = slopes(label_loss(student), x) - slopes(label_loss(teacher), x)
        return (0.5 * np.linalg.norm(gap, axis=-1)).mean()
    first = logits(teacher, x).argmax(-1)
    sides = [
        slopes(lambda x, model=model: logits(model, x)[rows, first], x)
        for model in (student, teacher)
    ]
    s, t = (j / np.linalg.norm(j, axis=-1, keepdims=True) for j in sides)
    return ((s - t) ** 2).sum(-1).mean()


@both
@pytest.mark.parametrize("way", ["run_eagerly", "jit_compile"])
def test_a_step_equals_finite_differences(loss, tap, way):
    student, teacher = smooth_net(1, "student"), smooth_net(2, "teacher")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3, 2, 1)), rng.integers(0, 4, 6)
    value = expected(loss, student, teacher, x, y)
    kernel = student.get_layer("hidden").kernel
    start = np.array(kernel)
    nudged = start.astype("float64")
    nudged[2, 3] += 1e-2
    kernel.assign(nudged)
    ahead = expected(loss, student, teacher, x, y)
    nudged[2, 3] -= 2e-2
    kernel.assign(nudged)
    behind = expected(loss, student, teacher, x, y)
    kernel.assign(start)

    distiller = kd.Distiller(
        student, teacher, terms=[kd.Term(loss(), tap, tap, 1.0)], label_weight=0.0
    )
    distiller.compile(keras.optimizers.SGD(1.0), **{way: True})
    logs = distiller.train_on_batch(x.astype("float32"), y, return_dict=True)
    assert logs["loss"] == pytest.approx(value, rel=1e-4)
    # One step of rate 1 moves a weight by its slope.
    moved = start[2, 3] - np.array(kernel)[2, 3]
    assert moved == pytest.approx((ahead - behind) / 2e-2, rel=1e-2, abs=1e-5)


@both
def test_images_of_integers_are_those_of_floats(loss, tap):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, (6, 3, 2, 1)).astype("uint8"), rng.integers(0, 4, 6)
    found = []
    for images in (x, x.astype("float32")):
        nets = smooth_net(1, "student"), smooth_net(2, "teacher")
        terms = [kd.Term(loss(), tap, tap, 1.0)]
        distiller = kd.Distiller(*nets, terms=terms, label_weight=0.0)
        distiller.compile(keras.optimizers.SGD(1.0))
        found.append(distiller.train_on_batch(images, y, return_dict=True)["loss"])
    assert float(found[0]) == pytest.approx(float(found[1])) and float(found[0]) > 0


@pytest.fixture
def double_precision():
    before = keras.config.dtype_policy()
    for dtype in ("float64", "float32"):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        if dtype == "float64":
            yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("norm", [layers.BatchNormalization, layers.LayerNormalization])
def test_second_derivatives_pass_through_normalisation(norm, double_precision):
    """Of the weights in front of it too, which TensorFlow's own moments get wrong."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 6, 1))
    for filters in (3, 4):
        x = norm()(layers.Conv2D(filters, 3, padding="same")(x))
        x = layers.Activation("tanh")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(5)(x))
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(8, 6, 6, 1)))
    target, labels = rng.normal(size=images.shape), rng.integers(0, 5, 8)
    tap, loss = kd.Tap.input_gradient(), kd.losses.GradientAttention()

    def value():
        found = taps.forward(
            model, images, [tap], training=True, scores=gradient_scores(labels)
        )[1]
        return loss(target, found[tap])

    plain = tf.nn.moments
    with tf.GradientTape() as tape:
        result = value()
    assert tf.nn.moments is plain
    kernels = [w for w in model.trainable_variables if w.path.endswith("kernel")]
    slopes_found = tape.gradient(result, [kernel.value for kernel in kernels])
    for kernel, slope in zip(kernels, slopes_found, strict=True):
        start, ends = np.array(kernel), []
        place = np.unravel_index(np.argmax(np.abs(slope)), start.shape)
        for nudge in (1e-5, -1e-5):
            nudged = start.copy()
            nudged[place] += nudge
            kernel.assign(nudged)
            ends.append(float(value()))
        kernel.assign(start)
        expected = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(slope[place], expected, rtol=1e-6)


def asymmetry(model, x, y):
    """Distance of the label gradients by images and by their mirrors, mirrored back."""
    rows = np.arange(len(x))

    def score(x):
        z = logits(model, x)
        return np.log(np.exp(z).sum(-1)) - z[rows, y]

    mirrored = slopes(score, x[:, :, ::-1]).reshape(x.shape)[:, :, ::-1]
    gap = slopes(score, x) - mirrored.reshape(len(x), -1)
    return (0.5 * np.linalg.norm(gap, axis=-1)).mean()


SYMMETRY = {"student": (kd.Tap.input_gradient(), kd.Tap.input_gradient(mirrored=True))}


@pytest.mark.parametrize("way", ["run_eagerly", "jit_compile"])
def test_flip_symmetry_equals_finite_differences(way):
    student, teacher = smooth_net(1, "student"), smooth_net(2, "teacher")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3, 2, 1)), rng.integers(0, 4, 6)
    value = asymmetry(student, x, y)
    kernel = student.get_layer("hidden").kernel
    start, found = np.array(kernel), []
    for nudge in (1e-2, -1e-2):
        nudged = start.astype("float64")
        nudged[2, 3] += nudge
        kernel.assign(nudged)
        found.append(asymmetry(student, x, y))
    kernel.assign(start)

    calls, plain = [], teacher.call
    teacher.call = lambda *a, **k: calls.append(1) or plain(*a, **k)
    term = kd.Term(kd.losses.FlipSymmetry(), **SYMMETRY, weight=1.0)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(1.0), **{way: True})
    calls.clear()
    logs = distiller.train_on_batch(x.astype("float32"), y, return_dict=True)
    assert logs["loss"] == pytest.approx(value, rel=1e-4)
    moved = start[2, 3] - np.array(kernel)[2, 3]
    assert moved == pytest.approx((found[0] - found[1]) / 2e-2, rel=1e-2, abs=1e-5)
    # It asks nothing of the teacher, which does not run.
    assert not calls


def test_flip_symmetry_is_learnt_and_wants_images(nets, images):
    keras.utils.set_random_seed(0)
    x, y = images
    term = kd.Term(kd.losses.FlipSymmetry(), **SYMMETRY, weight=1.0)
    distiller = kd.Distiller(*nets, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.01))
    history = distiller.fit(x, y, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    flat = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"mirrors images \(B, H, W, C\)"):
        kd.Distiller(flat, keras.models.clone_model(flat), terms=[term])


@both
@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.long)]
)
def test_nets_with_normalisation_and_pooling_learn(loss, tap, jit_compile):
    def net(filters, name):
        x = inputs = keras.Input((8, 8, 1))
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, layers.Dense(3, name="logits")(x), name=name)

    keras.utils.set_random_seed(0)
    student, teacher = net(4, "student"), net(8, "teacher")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 1)).astype("float32")
    y = rng.integers(0, 3, 64)
    distiller = kd.Distiller(
        student, teacher, terms=[kd.Term(loss(), tap, tap, 1.0)], label_weight=0.0
    )
    distiller.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
    history = distiller.fit(x, y, batch_size=32, epochs=15, verbose=0).history["loss"]
    assert np.all(np.isfinite(history))
    assert history[-1] < 0.8 * history[0]


def test_beside_other_terms_one_pass_of_each_net(nets, images, cross_entropy):
    calls = {"student": 0, "teacher": 0}
    student, teacher = nets
    for name, model in zip(calls, nets, strict=True):
        layer, plain = model.get_layer("stack1"), model.get_layer("stack1").call

        def counted(*args, name=name, plain=plain, **kwargs):
            calls[name] += 1
            return plain(*args, **kwargs)

        layer.call = counted
    terms = [
        kd.Term(kd.losses.SoftTarget(), weight=0.5),
        kd.Term(kd.losses.AttentionMap(), "stack2", "stack2"),
        kd.Term(kd.losses.GradientAttention(), *[kd.Tap.input_gradient()] * 2),
        kd.Term(kd.losses.Jacobian(), *[kd.Tap.input_gradient("first_class")] * 2),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms)
    distiller.compile("adam", cross_entropy, run_eagerly=True)
    # The first batch is looked at before it is trained on.
    distiller.train_on_batch(*images)
    calls.update(student=0, teacher=0)
    logs = distiller.train_on_batch(*images, return_dict=True)
    assert calls == {"student": 1, "teacher": 1}
    assert {"gradient_attention", "jacobian", "attention_map"} <= set(logs)
    found = distiller.evaluate(*images, verbose=0, return_dict=True)
    assert "jacobian" not in found


@pytest.mark.long
def test_gradients_survive_saving(nets, images, cross_entropy, tmp_path):
    student, teacher = nets
    term = kd.Term(
        kd.losses.Jacobian(),
        kd.Tap.input_gradient("first_class"),
        kd.Tap.input_gradient("first_class"),
    )
    alone = kd.Term(kd.losses.FlipSymmetry(), **SYMMETRY)
    distiller = kd.Distiller(student, teacher, terms=[term, alone])
    distiller.compile("adam", cross_entropy)
    distiller.fit(*images, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    again.set_teacher(teacher)
    assert "flip_symmetry" in again.fit(*images, verbose=0).history


def test_a_mirrored_pass_leaves_penalties_as_they_are(images):
    """An activity's penalty is that of the batch, not of its mirror, and counts once."""
    x, y = images[0][:8], images[1][:8]

    def net(name):
        inputs = keras.Input(x.shape[1:])
        flat = layers.Flatten()(inputs)
        first = layers.Dense(4, activity_regularizer="l2", name="first")
        return keras.Model(
            inputs, layers.Dense(3, name="logits")(first(flat)), name=name
        )

    student, teacher = net("student"), net("teacher")
    hidden = np.array(student.get_layer("first")(student.layers[1](x)), "float64")
    expected = 0.01 * (hidden**2).sum() / len(x)
    term = kd.Term(kd.losses.FlipSymmetry(), **SYMMETRY, weight=0.0)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile("sgd")
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)


def test_ensembles_have_no_gradient():
    student, teacher = conv_pair()
    other = conv_pair()[1]
    term = kd.Term(
        kd.losses.Jacobian(),
        kd.Tap.input_gradient("first_class"),
        kd.Tap.input_gradient("first_class"),
    )
    with pytest.raises(ValueError, match="An ensemble has no gradient"):
        distiller = kd.Distiller(
            student, kd.EnsembleTeacher([teacher, other]), terms=[term]
        )
        distiller.compile("adam")
        distiller.train_on_batch(np.zeros((2, 8, 8, 1), "float32"))


def test_tokens_have_no_gradient():
    inputs = keras.Input((4,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(5, 3)(inputs))
    student = keras.Model(inputs, layers.Dense(2)(x), name="student")
    teacher = keras.models.clone_model(student)
    term = kd.Term(kd.losses.GradientAttention(), *[kd.Tap.input_gradient()] * 2)
    with pytest.raises(ValueError, match="one input of real numbers"):
        kd.Distiller(student, teacher, terms=[term])


def test_equal_gradients_are_finite(gradient):
    loss = kd.losses.GradientAttention()
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1))
    for known in (x, 0 * x, x + 1e-12):
        assert np.all(np.isfinite(gradient(lambda g, k=known: loss(k, g), x)))
    assert float(ops.sum(loss(x, x))) == 0.0


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_gradient_of_labels_needs_labels(mirrored):
    student, teacher = conv_pair()
    tap = kd.Tap.input_gradient(mirrored=mirrored)
    term = kd.Term(kd.losses.GradientAttention(), tap, tap, name="slope")
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile("sgd")
    with pytest.raises(
        ValueError, match=r"Term 'slope' taps .* the data have no labels"
    ):
        distiller.fit(np.ones((4, *student.input_shape[1:]), "float32"), verbose=0)
