"""Each target against its formula in NumPy, and the properties that all share."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from keras_distill import targets
from tests import formulas

RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3])
VECTORS = RNG.normal(size=(5, 7))
GROUPS = [0, 1, 0, 1, 2]
SIMILARITY = targets.ClassSimilarity(VECTORS, temperature=0.4, power=0.7)
# A target, and its formula at a temperature.
TARGETS = {
    "top_2": (targets.TopK(2), lambda t: formulas.top_k(LOGITS, 2, t)),
    "top_all": (targets.TopK(5), lambda t: formulas.softmax(LOGITS / t)),
    "true_class": (
        targets.TrueClass(),
        lambda t: formulas.true_class(LOGITS, LABELS, t),
    ),
    "class_similarity": (
        SIMILARITY,
        lambda t: formulas.class_similarity(VECTORS, LABELS, 0.4, 0.7),
    ),
    "super_classes": (
        targets.SuperClasses(GROUPS, (0.8, 0.1, 0.05)),
        lambda t: formulas.super_classes(GROUPS, (0.8, 0.1, 0.05), LABELS),
    ),
    "mixed": (
        targets.Mixed(targets.TrueClass(), SIMILARITY, 0.3),
        lambda t: (
            0.7 * formulas.true_class(LOGITS, LABELS, t)
            + 0.3 * formulas.class_similarity(VECTORS, LABELS, 0.4, 0.7)
        ),
    ),
    "uniform": (targets.Uniform(), lambda t: np.full((6, 5), 0.2)),
    "power_transform": (
        targets.PowerTransform(0.3),
        lambda t: formulas.power_transform(LOGITS, 0.3, t),
    ),
    "virtual_teacher": (
        targets.VirtualTeacher(0.95),
        lambda t: formulas.virtual_teacher(0.95, LABELS, 5, t),
    ),
}
every_target = pytest.mark.parametrize("name", TARGETS)
CONTEXT = {"labels": LABELS, "step": 7}


def probabilities(target, logits=LOGITS, temperature=1.0, **context):
    tensor = keras.ops.convert_to_tensor(logits, "float32")
    return np.exp(np.asarray(target(tensor, temperature, **{**CONTEXT, **context})))


@every_target
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equals_numpy(name, temperature):
    target, formula = TARGETS[name]
    found = probabilities(target, temperature=temperature)
    np.testing.assert_allclose(found, formula(temperature), rtol=2e-4, atol=1e-7)


@every_target
def test_divergences_of_a_target_equal_numpy(name):
    target, formula = TARGETS[name]
    student = RNG.normal(size=(6, 5))
    p, q = formula(2.0), formulas.softmax(student / 2)
    m = (p + q) / 2
    expected = {
        kd.losses.SoftTarget: 4 * (p * np.log(p / q)).sum(-1),
        kd.losses.ReverseSoftTarget: 4 * (q * np.log(q / p)).sum(-1),
        kd.losses.JensenShannon: 2 * (p * np.log(p / m) + q * np.log(q / m)).sum(-1),
    }
    for loss, values in expected.items():
        found = loss(2.0, target=target, reduction=None)(LOGITS, student, **CONTEXT)
        np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-6)


@every_target
def test_sequences_are_compared_token_by_token(name):
    target, _ = TARGETS[name]
    rows = probabilities(target)
    tokens = probabilities(target, LOGITS.reshape(2, 3, 5), labels=LABELS.reshape(2, 3))
    np.testing.assert_allclose(tokens.reshape(6, 5), rows, rtol=1e-5)


@every_target
def test_finite_and_normalized_at_large_logits(name):
    target, _ = TARGETS[name]
    for logits in (1e4 * np.sign(LOGITS), np.zeros((6, 5)), 1e4 * LOGITS):
        found = probabilities(target, logits)
        assert np.all(np.isfinite(found))
        np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-4)


@every_target
def test_serialization(name):
    loss = kd.losses.SoftTarget(2.0, target=TARGETS[name][0])
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert type(again.target) is type(loss.target) and again.needs == loss.needs
    student = LOGITS[::-1]
    np.testing.assert_allclose(
        again(LOGITS, student, **CONTEXT), loss(LOGITS, student, **CONTEXT), rtol=1e-6
    )


def test_the_arguments_are_the_configuration():
    mixed = targets.Mixed(targets.TopK(2), targets.ClassSimilarity(np.eye(2)), 0.3)
    config = mixed.get_config()
    assert config["share"] == 0.3 and config["first"]["config"] == {"k": 2}
    assert config["second"]["config"] == {
        "class_vectors": [[1.0, 0.0], [0.0, 1.0]],
        "temperature": 0.3,
        "power": 0.5,
    }
    assert targets.Mixed.from_config(config).get_config() == config
    assert targets.Uniform().get_config() == {}

    class Forgotten(targets.Target):
        def __init__(self, k):
            del k

    with pytest.raises(ValueError, match=r"none for \['k'\]"):
        Forgotten(2).get_config()


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_targets_apply_to_the_average_of_an_ensemble(average):
    nets = []
    for name in "ab":
        inputs = keras.Input((3,))
        nets.append(keras.Model(inputs, keras.layers.Dense(5)(inputs), name=name))
    members = LOGITS, LOGITS[::-1]
    teacher = kd.EnsembleTeacher(nets, average=average)
    logits = teacher.logits([keras.ops.cast(z, "float32") for z in members], 2.0)
    if average == "arithmetic":
        mean = np.log(sum(formulas.softmax(z / 2) for z in members) / 2)
    else:
        mean = sum(members) / 2 / 2
    found = probabilities(targets.TopK(2), logits, temperature=2.0)
    np.testing.assert_allclose(found, formulas.top_k(mean, 2, 1.0), rtol=1e-4)


def test_labels_of_any_shape_and_as_probabilities():
    target = targets.TrueClass()
    expected = probabilities(target)
    for labels in (LABELS[:, None], np.eye(5)[LABELS], 0.9 * np.eye(5)[LABELS] + 0.02):
        found = probabilities(target, labels=labels)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_two_classes_equal_the_prediction():
    found = probabilities(targets.TrueClass(), LOGITS[:, :2], labels=LABELS % 2)
    np.testing.assert_allclose(found, formulas.softmax(LOGITS[:, :2]), rtol=1e-4)


def test_ties_with_the_kth_class_are_kept():
    found = probabilities(targets.TopK(1), np.array([[2.0, 2.0, 0.0, 1.0]]))
    p = formulas.softmax(np.array([2.0, 2.0, 0.0, 1.0]))
    rest = (p[2] + p[3]) / 2
    np.testing.assert_allclose(found, [[p[0], p[1], rest, rest]], rtol=1e-5)


def test_zero_masses_leave_the_divergence_finite():
    target = targets.SuperClasses(GROUPS, (1.0, 0.0, 0.0))
    student = RNG.normal(size=(6, 5))
    found = kd.losses.SoftTarget(1.0, target=target)(LOGITS, student, **CONTEXT)
    expected = -np.log(formulas.softmax(student)[np.arange(6), LABELS]).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_uniform_target_with_labels_is_label_smoothing(gradient):
    """(1 - e) CE + e KL(uniform || q) has the gradient of smoothed labels."""
    smoothed = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.2
    )
    plain = keras.losses.CategoricalCrossentropy(from_logits=True)
    uniform = kd.losses.SoftTarget(1.0, target=targets.Uniform())
    y = np.eye(5, dtype="float32")[LABELS]
    found = gradient(lambda z: 0.8 * plain(y, z) + 0.2 * uniform(LOGITS, z), LOGITS)
    expected = gradient(lambda z: smoothed(y, z), LOGITS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


class TestPermuted:
    def test_the_largest_stays_and_the_others_are_permuted(self):
        p = formulas.softmax(LOGITS)
        found = probabilities(targets.Permuted(seed=1))
        assert np.all(found.argmax(-1) == p.argmax(-1))
        np.testing.assert_allclose(found.max(-1), p.max(-1), rtol=1e-5)
        np.testing.assert_allclose(np.sort(found), np.sort(p), rtol=1e-4)

    def test_samples_and_steps_differ_and_a_step_repeats(self):
        logits = np.tile(np.arange(12.0), (64, 1))
        orders = [
            np.argsort(probabilities(targets.Permuted(), logits, step=step))
            for step in (0, 1, 997, 1)
        ]
        assert len({tuple(row) for row in orders[0]}) > 60
        assert np.mean(np.all(orders[0] == orders[1], -1)) < 0.1
        assert np.mean(np.all(orders[0] == orders[2], -1)) < 0.1
        np.testing.assert_array_equal(orders[1], orders[3])

    def test_orders_are_equally_likely(self):
        """Each of the six orders of three wrong classes is drawn for about 500 of 3,000."""
        logits = np.tile([0.0, 9.0, 1.0, 2.0], (3000, 1))
        for step in (0, 1, 5000):
            found = probabilities(targets.Permuted(), logits, step=step)
            orders, counts = np.unique(np.argsort(found), axis=0, return_counts=True)
            assert len(orders) == 6
            assert counts.min() > 420 and counts.max() < 580

    def test_sequences_of_any_length(self):
        logits = RNG.normal(size=(2, 3, 5)).astype("float32")
        target = targets.Permuted()
        spec = tf.TensorSpec((None, None, 5), "float32")
        traced = tf.function(lambda x: target.call(x, 1.0, 3), input_signature=[spec])
        np.testing.assert_allclose(traced(logits), target.call(logits, 1.0, 3))

    def test_a_large_vocabulary(self):
        logits = RNG.normal(size=(2, 100_000))
        found = probabilities(targets.Permuted(), logits)
        np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: targets.TopK(0), "1 or more; got 0"),
        (lambda: targets.ClassSimilarity(VECTORS[0]), r"got shape \(7,\)"),
        (
            lambda: targets.ClassSimilarity(VECTORS, power=0),
            "power must be above 0; got 0",
        ),
        (lambda: targets.SuperClasses(GROUPS, (0, 1, 1)), r"got \(0, 1, 1\)"),
        (
            lambda: targets.Mixed(SIMILARITY, SIMILARITY, 1.0),
            "between 0 and 1; got 1.0",
        ),
        (lambda: targets.VirtualTeacher(1.5), "got 1.5"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_loss_rejects_other_targets():
    with pytest.raises(TypeError, match="got 'top5'"):
        kd.losses.SoftTarget(4.0, target="top5")


def test_hard_labels_are_the_cross_entropy_with_the_teachers_class():
    student = RNG.normal(size=(6, 5))
    expected = -formulas.log_softmax(student)[np.arange(6), LOGITS.argmax(-1)]
    loss = kd.losses.SoftTarget(1.0, target=targets.HardLabel(), reduction=None)
    np.testing.assert_allclose(loss(LOGITS, student), expected, rtol=1e-5)
    for temperature in (0.5, 8.0):
        found = probabilities(targets.HardLabel(), temperature=temperature)
        np.testing.assert_array_equal(found, np.eye(5)[LOGITS.argmax(-1)])
