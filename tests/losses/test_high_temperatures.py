"""Divergences at temperatures up to 1e8, against NumPy with 64 bits of mantissa."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.optimizers.schedules import PolynomialDecay

import keras_distill as kd
from keras_distill.teachers.averaging_teacher import averaged

WIDE = np.longdouble
TEMPERATURES = [1.0, 1e2, 1e4, 1e6, 1e8]
CLASSES, LABELS = 5, np.arange(6) % 5


def logits(shape=(6, CLASSES)):
    pair = np.random.default_rng(0).normal(size=(2, *shape)) * 3.0
    return pair.astype("float32").astype(WIDE)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def soft_target(teacher, student):
    return kl(log_softmax(teacher), log_softmax(student))


def jensen_shannon(teacher, student):
    p, q = log_softmax(teacher), log_softmax(student)
    m = np.log((np.exp(p) + np.exp(q)) / 2)
    return (kl(p, m) + kl(q, m)) / 2


def yes_or_no(z):
    return log_softmax(np.stack([z, 0 * z], axis=-1))


def binary(teacher, student):
    return kl(yes_or_no(teacher), yes_or_no(student)).mean(-1)


def decoupled(teacher, student):
    true = np.eye(CLASSES, dtype=bool)[LABELS]

    def parts(z):
        others = z[~true].reshape(-1, CLASSES - 1)
        rest = np.log(np.exp(others).sum(-1))
        return yes_or_no(z[true] - rest), log_softmax(others)

    (b_t, o_t), (b_s, o_s) = parts(teacher), parts(student)
    return kl(b_t, b_s) + 8 * kl(o_t, o_s)


def correlation(teacher, student):
    p, q = (np.exp(log_softmax(z)) for z in (teacher, student))

    def missing(axis):
        x, y = (z - z.mean(axis, keepdims=True) for z in (p, q))
        norms = np.sqrt((x**2).sum(axis) * (y**2).sum(axis))
        return 1 - (x * y).sum(axis) / norms

    return missing(-1) + missing(0).mean()


LOSSES = {
    kd.losses.SoftTarget: soft_target,
    kd.losses.ReverseSoftTarget: lambda t, s: soft_target(s, t),
    kd.losses.JensenShannon: jensen_shannon,
    kd.losses.BinarySoftTarget: binary,
    kd.losses.DecoupledTarget: decoupled,
    kd.losses.PredictionCorrelation: correlation,
}


def differences(function, z, temperature):
    """Return central differences of the sum of `T^2 * function(z / T)`."""
    found = np.zeros(z.shape)
    for index in np.ndindex(z.shape):
        step = np.zeros(z.shape, WIDE)
        step[index] = 1e-2
        above, below = (function(x / temperature).sum() for x in (z + step, z - step))
        found[index] = temperature**2 * (above - below) / 2e-2
    return found


def call(loss, *tensors):
    context = {"labels": LABELS} if "labels" in loss.needs else {}
    if "mask" in loss.needs:
        context |= {"mask": None, "teacher_mask": None}
    return loss(*tensors, **context)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind, formula", LOSSES.items(), ids=lambda x: x.__name__)
def test_values_and_gradients(kind, formula, temperature, gradient):
    teacher, student = logits()
    expected = temperature**2 * formula(teacher / temperature, student / temperature)
    sides = teacher.astype("float32"), student.astype("float32")
    values = call(kind(temperature, reduction=None), *sides)
    np.testing.assert_allclose(values, expected.astype("float64"), rtol=1e-3)
    if temperature > 1e6:
        return  # Even the wide differences are rounded here.
    grad = gradient(
        lambda z: call(kind(temperature, reduction="sum"), sides[0], z), sides[1]
    )
    expected = differences(
        lambda z: formula(teacher / temperature, z), student, temperature
    )
    size = np.abs(expected).max()
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-3 * size)


@pytest.mark.parametrize("kind", [kd.losses.SoftTarget, kd.losses.ReverseSoftTarget])
def test_the_limit(kind, gradient):
    """Half the mean squared difference of centered logits, and its gradient."""
    teacher, student = (
        (z - z.mean(-1, keepdims=True)).astype("float32") for z in logits()
    )
    loss = kind(1e8, reduction="sum")
    half = 0.5 * np.square(student - teacher).mean(-1).sum()
    np.testing.assert_allclose(loss(teacher, student), half, rtol=1e-4)
    grad = gradient(lambda z: loss(teacher, z), student)
    np.testing.assert_allclose(
        grad, (student - teacher) / CLASSES, rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_vocabulary_in_chunks(temperature, gradient):
    teacher, student = logits((2, 3, 300))
    sides = teacher.astype("float32"), student.astype("float32")
    expected = temperature**2 * soft_target(
        teacher / temperature, student / temperature
    )
    loss = kd.losses.SoftTarget(temperature, reduction=None)
    np.testing.assert_allclose(loss(*sides), expected.astype("float64"), rtol=1e-3)
    gap = np.exp(log_softmax(student / temperature))
    gap = temperature * (gap - np.exp(log_softmax(teacher / temperature)))
    total = kd.losses.SoftTarget(temperature, reduction="sum")
    grad = gradient(lambda z: total(sides[0], z), sides[1])
    size = np.abs(gap).max()
    np.testing.assert_allclose(grad, gap.astype("float64"), atol=1e-3 * size)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_vocabulary_from_states(temperature, gradient):
    """The head is the identity, so that the states are the logits."""
    teacher, student = logits()
    sides = teacher.astype("float32"), student.astype("float32")
    head = ops.eye(CLASSES), None, False
    heads = {"teacher_head": head, "student_head": head}
    loss = kd.losses.VocabularySoftTarget(temperature, reduction="sum")
    expected = temperature**2 * soft_target(
        teacher / temperature, student / temperature
    )
    np.testing.assert_allclose(loss(*sides, **heads), float(expected.sum()), rtol=1e-3)
    gap = np.exp(log_softmax(student / temperature))
    gap = temperature * (gap - np.exp(log_softmax(teacher / temperature)))
    grad = gradient(lambda z: loss(sides[0], z, **heads), sides[1])
    size = np.abs(gap).max()
    np.testing.assert_allclose(grad, gap.astype("float64"), atol=1e-3 * size)


@pytest.mark.parametrize("left_out", [False, True])
@pytest.mark.parametrize("predicts", ["classes", "labels"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_average_of_an_ensemble(temperature, predicts, left_out):
    """The averaged prediction at T is that of the logits which `averaged` returns."""
    members = logits()
    if left_out and predicts == "labels":
        pytest.skip("a class is left out of a softmax")
    if left_out:
        members[..., 2] = -np.inf
    found = averaged(
        [ops.convert_to_tensor(z.astype("float32")) for z in members],
        [0.3, 0.7],
        "arithmetic",
        temperature,
        predicts,
    )
    softened = [z / temperature for z in members]
    if predicts == "labels":
        p = sum(w / (1 + np.exp(-z)) for w, z in zip([0.3, 0.7], softened, strict=True))
        expected = temperature * (np.log(p) - np.log1p(-p))
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            p = sum(
                w * np.exp(log_softmax(z))
                for w, z in zip([0.3, 0.7], softened, strict=True)
            )
            expected = temperature * np.log(p)
    found = np.asarray(ops.convert_to_numpy(found), "float64")
    finite = np.isfinite(expected.astype("float64"))
    if predicts == "classes":
        found, expected = (
            x
            - np.where(finite, x, 0).sum(-1, keepdims=True)
            / finite.sum(-1, keepdims=True)
            for x in (found, expected)
        )
    assert not np.isfinite(found[~finite]).any()
    np.testing.assert_allclose(
        found[finite], expected[finite].astype("float64"), rtol=1e-3, atol=1e-4
    )


def test_absent_classes_and_confident_rows(gradient):
    """Rows that are not close, and classes that both leave out, are as at low T."""
    teacher, student = logits()
    teacher[0] *= 1e5
    teacher[:, 1] = student[:, 1] = -np.inf
    present = np.delete(np.arange(CLASSES), 1)
    expected = 1e4 * soft_target(
        teacher[:, present] / 100, student[:, present] / 100
    ).astype("float64")
    sides = teacher.astype("float32"), student.astype("float32")
    loss = kd.losses.SoftTarget(100.0, reduction=None)
    np.testing.assert_allclose(loss(*sides), expected, rtol=1e-3)
    for kind in (kd.losses.SoftTarget, kd.losses.ReverseSoftTarget):
        grad = gradient(lambda z, kind=kind: kind(100.0)(sides[0], z), sides[1])
        assert np.isfinite(grad[:, present]).all()
    student[0, 2] = -np.inf
    assert np.isposinf(loss(sides[0], student.astype("float32"))[0])


def test_a_schedule_may_rise():
    teacher, student = (z.astype("float32") for z in logits())
    loss = kd.losses.SoftTarget(PolynomialDecay(1.0, 10, 1e6), reduction=None)
    expected = 1e12 * soft_target(*(z.astype(WIDE) / 1e6 for z in (teacher, student)))
    values = loss(teacher, student, temperature=1e6)
    np.testing.assert_allclose(values, expected.astype("float64"), rtol=1e-3)


class Hellinger(kd.losses.Divergence):
    def between(self, log_p, log_q):
        return 1.0 - ops.sum(ops.exp((log_p + log_q) / 2), axis=-1)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: kd.losses.SoftTarget(1e9), ["temperature", "1e+08", "1e+09"]),
        (lambda: kd.losses.SoftTarget(300.0, dtype="float16"), ["float16", "200"]),
        (
            lambda: kd.losses.SoftTarget(1e4, target=kd.targets.TopK(2)),
            ["temperature", "1000", "TopK"],
        ),
        (lambda: Hellinger(1e3), ["temperature", "100", "Hellinger"]),
    ],
)
def test_what_rounding_would_spoil_is_refused(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("temperature", [100.0, 1000.0])
def test_targets_up_to_their_bound(temperature):
    """All classes kept is the prediction itself."""
    teacher, student = logits()
    target = kd.targets.TopK(CLASSES)
    loss = kd.losses.SoftTarget(temperature, target=target, reduction=None)
    expected = temperature**2 * soft_target(
        teacher / temperature, student / temperature
    )
    found = loss(teacher.astype("float32"), student.astype("float32"))
    np.testing.assert_allclose(found, expected.astype("float64"), rtol=1e-3)


def test_a_temperature_that_a_callback_raises_is_refused(nets, images, cross_entropy):
    distiller = kd.Distiller(*nets)
    distiller.compile("sgd", cross_entropy)

    class Raise(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            distiller.terms["soft_target"].temperature.assign(1e6)

    with pytest.raises(ValueError, match="temperature of term 'soft_target' was 4"):
        distiller.fit(*images, verbose=0, callbacks=[Raise()])
