"""Labels that are mixed, as MixUp and CutMix make them, reach a term or are refused."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.linear import linear, points

X, CLASSES = points(16)
ROWS = np.eye(3, dtype="float32")[CLASSES]
MIXED = 0.7 * ROWS + 0.3 * ROWS[::-1]
CROSS_ENTROPY = keras.losses.CategoricalCrossentropy(from_logits=True)
OF_ONE_CLASS = {
    "decoupled": kd.losses.DecoupledTarget(),
    "verification": kd.losses.Verification(),
    "triplet": kd.losses.ClassTriplet(),
    "true_class": kd.losses.SoftTarget(target=kd.targets.TrueClass()),
    "virtual": kd.losses.JensenShannon(target=kd.targets.VirtualTeacher()),
    "super": kd.losses.SoftTarget(target=kd.targets.SuperClasses([0, 0, 1])),
    "similarity": kd.losses.SoftTarget(target=kd.targets.ClassSimilarity(np.eye(3))),
    "mixture": kd.losses.SoftTarget(
        target=kd.targets.Mixed(kd.targets.Uniform(), kd.targets.TrueClass())
    ),
}


def fit(loss, labels):
    student, teacher = linear("student"), linear("teacher")
    distiller = kd.Distiller(student, teacher, terms=[kd.Term(loss, name="term")])
    distiller.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY)
    history = distiller.fit(X, labels, batch_size=16, verbose=0).history
    return student, teacher, history["term"][0]


@pytest.mark.parametrize("kind", OF_ONE_CLASS)
def test_a_loss_of_one_class_refuses_mixed_labels(kind):
    with pytest.raises(ValueError, match=r"'term' is of one class .* labels are mixed"):
        fit(OF_ONE_CLASS[kind], MIXED)
    assert np.isfinite(fit(OF_ONE_CLASS[kind], ROWS)[2])


def test_cutmix_of_equal_parts_is_mixed():
    with pytest.raises(ValueError, match="labels are mixed"):
        fit(kd.losses.DecoupledTarget(), np.maximum(ROWS, ROWS[::-1]))


def test_a_weighted_cross_entropy_takes_rows_as_they_are():
    student, teacher, found = fit(kd.losses.ConfidenceWeightedLabel(), MIXED)
    log_q, log_p = (
        z - np.log(np.exp(z).sum(-1, keepdims=True))
        for z in (m.predict(X, verbose=0).astype("float64") for m in (student, teacher))
    )
    confidence = np.exp(log_p).max(-1)
    expected = -(MIXED * log_q).sum(-1) * confidence / confidence.mean()
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)


def test_gradients_of_the_label_loss_are_those_of_mixed_labels():
    """Of a linear model W the gradient by the input is W (softmax(z) - y)."""
    student, teacher, found = gradient_attention(MIXED)
    gaps = [(softmax(m.predict(X, verbose=0)) - MIXED) for m in (student, teacher)]
    kernels = [np.array(m.layers[-1].kernel, "float64") for m in (student, teacher)]
    by_input = [gap @ kernel.T for gap, kernel in zip(gaps, kernels, strict=True)]
    expected = 0.5 * np.linalg.norm(by_input[0] - by_input[1], axis=-1)
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-4)


def softmax(logits):
    e = np.exp(logits.astype("float64"))
    return e / e.sum(-1, keepdims=True)


def gradient_attention(labels):
    student, teacher = linear("student"), linear("teacher")
    tap = kd.Tap.input_gradient()
    term = kd.Term(kd.losses.GradientAttention(), tap, tap, name="term", adapter=None)
    distiller = kd.Distiller(student, teacher, terms=[term])
    distiller.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY)
    history = distiller.fit(X, labels, batch_size=16, verbose=0).history
    return student, teacher, history["term"][0]


def test_classes_of_pixels_are_not_mixed():
    """Rows of a map of classes have many entries that are not 0."""
    images = np.random.default_rng(0).random((4, 3, 3, 2)).astype("float32")

    def segmenter(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((3, 3, 2))
        return keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))

    terms = [kd.Term(kd.losses.DecoupledTarget(), name="term")]
    distiller = kd.Distiller(segmenter(0), segmenter(1), terms=terms)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss)
    labels = np.random.default_rng(0).integers(0, 3, (4, 3, 3))
    assert np.isfinite(distiller.fit(images, labels, verbose=0).history["term"][0])


def batches(*labels):
    """Return a `keras.utils.PyDataset` of batches, of which `fit` reads the first."""

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(labels)

        def __getitem__(self, index):
            return X, labels[index]

    return Batches()


@pytest.mark.parametrize(
    ("kind", "mixed"),
    [
        *(("triplet", "mixup"), ("triplet", "cutmix"), ("decoupled", "cutmix")),
        *(("true_class", "mixup"), ("verification", "mixup")),
    ],
)
def test_a_later_batch_that_is_mixed_stops_the_training(kind, mixed):
    """And moves no weight by the term until it does."""
    later = MIXED if mixed == "mixup" else np.maximum(ROWS, ROWS[::-1])
    student, teacher = linear("student"), linear("teacher")
    terms = [kd.Term(OF_ONE_CLASS[kind], name="term")]
    distiller = kd.Distiller(student, teacher, terms=terms, label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    once = keras.models.clone_model(student)
    once.set_weights(student.get_weights())
    copies = [term.copy() for term in terms]
    alone = kd.Distiller(once, teacher, terms=copies, label_weight=0.0)
    alone.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    alone.fit(batches(ROWS), verbose=0)
    words = r"term is of one class .* on a batch whose labels are mixed"
    with pytest.raises(ValueError, match=words) as error:
        distiller.fit(batches(ROWS, later, ROWS), shuffle=False, verbose=0)
    assert "at call 2 of the step: term is not finite" in str(error.value)
    for expected, found in zip(once.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_peers_name_the_cause_too():
    peers = [linear("student"), linear("teacher")]
    peers[0].name, peers[1].name = "a", "b"
    terms = [kd.Term(kd.losses.DecoupledTarget(), name="term")]
    distiller = kd.MutualDistiller(peers, terms=terms)
    distiller.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    with pytest.raises(ValueError, match=r"term.* is of one class per sample"):
        distiller.fit(batches(ROWS, MIXED), shuffle=False, verbose=0)


def test_one_hot_pixels_and_classes_are_not_mixed():
    """Labels of one class per pixel, in both forms that Keras accepts."""
    images = np.random.default_rng(0).random((4, 3, 3, 2)).astype("float32")
    classes = np.random.default_rng(0).integers(0, 3, (4, 3, 3))
    for labels in (np.eye(3, dtype="float32")[classes], classes.astype("float32")):
        inputs = [keras.Input((3, 3, 2)) for _ in "ab"]
        nets = [keras.Model(x, keras.layers.Conv2D(3, 1)(x)) for x in inputs]
        target = kd.targets.TrueClass()
        terms = [kd.Term(kd.losses.SoftTarget(target=target), name="term")]
        distiller = kd.Distiller(*nets, terms=terms)
        is_dense = labels.ndim == 4
        sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile("sgd", CROSS_ENTROPY if is_dense else sparse)
        assert np.isfinite(distiller.fit(images, labels, verbose=0).history["term"][0])
