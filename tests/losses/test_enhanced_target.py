"""Enhanced targets against NumPy in float64, and the heads on a student's stages."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.losses import EnhancedTarget
from tests.formulas import log_softmax, softmax

LABELS = np.array([0, 4, 2, 1])


def enhanced(teacher, student, exponent):
    values = []
    for z_t, z_s, y in zip(teacher, student, LABELS, strict=True):
        p, log_q = softmax(z_t), log_softmax(z_s)
        rest = sum(p[k] * log_q[k] for k in range(len(p)) if k != y)
        values.append(-((1 + p[y]) ** exponent) * log_q[y] - rest)
    return np.array(values)


@pytest.fixture
def logits():
    return 2 * np.random.default_rng(0).normal(size=(2, 4, 5))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_equals_numpy(logits, exponent):
    loss = EnhancedTarget(exponent, reduction=None)
    found = loss(*logits, labels=LABELS)
    np.testing.assert_allclose(found, enhanced(*logits, exponent), rtol=1e-4)


def test_gradient_equals_finite_differences(logits, gradient, central_difference):
    teacher, student = logits
    loss = EnhancedTarget(1.5)
    grad = gradient(lambda z: loss(teacher, z, labels=LABELS), student)
    expected = central_difference(lambda z: enhanced(teacher, z, 1.5).mean(), student)
    np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-5)


def test_with_an_exponent_of_one_it_is_two_cross_entropies(logits):
    teacher, student = logits
    p, log_q = softmax(teacher), log_softmax(student)
    expected = -(p * log_q).sum(-1) - log_q[np.arange(4), LABELS]
    found = EnhancedTarget(reduction=None)(teacher, student, labels=LABELS)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("stage", "teacher", "count"),
    [
        ((None, 4, 4, 3), (None, 5), 2),
        ((None, 7, 3), (None, 5), 2),
        ((None, 3), (None, 5), 1),
        ((None, 7, 3), (None, 7, 5), 1),
        ((None, 5), (None, 5), 0),
    ],
)
def test_a_head_reaches_the_logits(stage, teacher, count):
    head, none = EnhancedTarget().adapters(stage, teacher)
    assert none is None
    parts = head.layers if isinstance(head, keras.Sequential) else [head]
    assert len([part for part in parts if part is not None]) == count
    if head is not None:
        assert head.compute_output_shape((2, *stage[1:])) == (2, *teacher[1:])


def test_a_stage_that_no_head_fits():
    with pytest.raises(ValueError, match="no head reaches the teacher's logits"):
        EnhancedTarget().adapters((None, 2, 2, 2, 3), (None, 5))


def test_stages_of_a_convolutional_student_learn_from_a_dense_teacher():
    """The heads are trained, and belong to the terms and not to the student."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(256, 6, 6, 1)).astype("float32")
    labels = (images[:, :3].mean((1, 2, 3)) > images[:, 3:].mean((1, 2, 3))).astype(int)
    teacher = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(2)]
    )
    half = np.repeat([1.0, -1.0], 18)
    teacher.set_weights([np.stack([-half, half], 1), np.zeros(2)])
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(6, 6, activation="relu", name="stage")(inputs)
    student = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    terms = [
        kd.Term(EnhancedTarget(), student="stage", name="stage"),
        kd.Term(EnhancedTarget(), name="output"),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms, label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.02))
    before = len(student.weights)
    logs = distiller.fit(images, labels, batch_size=64, epochs=12, verbose=0).history
    for name in ("stage", "output"):
        (key,) = [key for key in logs if name in key]
        assert logs[key][-1] < 0.7 * logs[key][0]
    assert len(student.weights) == before
    accuracy = np.mean(student.predict(images, verbose=0).argmax(-1) == labels)
    assert accuracy > 0.85


def test_rows_of_several_classes_are_not_taken():
    assert EnhancedTarget.needs_one_class
    with pytest.raises(ValueError, match="exponent must be above 0; got -1"):
        EnhancedTarget(-1)
    assert (
        ops.ndim(EnhancedTarget(reduction=None)(np.eye(3), np.eye(3), labels=[0, 1, 2]))
        == 1
    )


def test_shared_classes_cut_no_stage():
    """The first channels of a stage would be taken for logits."""
    kd.Term(EnhancedTarget(), shared_classes=3)
    with pytest.raises(ValueError, match="'stage' is a layer that EnhancedTarget puts"):
        kd.Term(EnhancedTarget(), student="stage", shared_classes=3)
    kd.Term(kd.losses.DecoupledTarget(), student="logits", shared_classes=3)
