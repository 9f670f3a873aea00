"""Images and labels that layers of Keras or KerasCV mix in `kd.data.batches`."""

import keras
import numpy as np
import pytest

import keras_distill as kd

pytest.importorskip("tensorflow", reason="batches are a tf.data pipeline")
CLASSES, SIZE = 5, 16
COLORS = np.linspace(0.0, 1.0, CLASSES).astype("float32")
LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)


@pytest.fixture(params=["keras", pytest.param("keras_cv", marks=pytest.mark.long)])
def layers(request):
    return pytest.importorskip(request.param).layers


@pytest.fixture
def samples():
    """Return images of one color each, which is that of the class."""
    labels = (np.arange(20) % CLASSES).astype("int32")
    images = np.broadcast_to(COLORS[labels][:, None, None, None], (20, SIZE, SIZE, 3))
    return kd.data.Samples(images, labels)


def arrays(dataset):
    x, y = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(x), np.concatenate(y)


def mixed(augment, samples):
    train = kd.data.batches(samples, 8, shuffle=True, augment=augment, classes=CLASSES)
    images, labels = arrays(train)
    assert labels.shape == (20, CLASSES)
    np.testing.assert_allclose(labels.sum(1), 1.0, atol=1e-5)
    assert ((labels > 0.02).sum(1) > 1).sum() > 4
    return images, labels


def test_mixup_mixes_labels_as_it_mixes_images(layers, samples):
    """The color of an image is the mean of its labels' colors."""
    images, labels = mixed(layers.MixUp(seed=1), samples)
    expected = np.broadcast_to((labels @ COLORS)[:, None, None, None], images.shape)
    np.testing.assert_allclose(images, expected, atol=1e-4)


def test_cutmix_mixes_labels_of_the_images_that_it_cuts(layers, samples):
    """Each color in an image is that of a class among its labels."""
    images, labels = mixed(layers.CutMix(seed=1), samples)
    for image, row in zip(images, labels, strict=True):
        colors = np.unique(np.abs(image.reshape(-1, 1) - COLORS).argmin(1))
        assert set(colors) <= set(np.flatnonzero(row))


def test_without_a_layer_labels_are_one_hot(samples):
    images, labels = arrays(kd.data.batches(samples, 8, classes=CLASSES))
    np.testing.assert_array_equal(images, samples.images)
    np.testing.assert_array_equal(labels, np.eye(CLASSES)[samples.labels])


def test_labels_outside_of_the_classes_are_refused(samples):
    with pytest.raises(ValueError, match="0 to 2 for 3 classes; got 0 to 4"):
        kd.data.batches(samples, classes=3)


def net(name):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(inputs)
    outputs = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x))
    return keras.Model(inputs, outputs, name=name)


def test_student_and_teacher_see_one_mixed_image_and_the_loss_its_labels(layers):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(24, SIZE, SIZE, 3)).astype("float32")
    samples = kd.data.Samples(images, (np.arange(24) % CLASSES).astype("int32"))
    augment = keras.layers.Pipeline(
        [layers.RandAugment(value_range=(0, 1), seed=1), layers.MixUp(seed=2)]
    )
    # Cached, so that the second pass has the batches of the first.
    train = kd.data.batches(samples, 8, augment=augment, classes=CLASSES).cache()
    x, y = arrays(train)
    assert np.abs(x - images).max() > 0.1 and ((y > 0.02).sum(1) > 1).sum() > 4
    teacher, student = net("teacher"), net("student")
    student.set_weights(teacher.get_weights())
    terms = [
        kd.Term(kd.losses.LogitRegression()),
        kd.Term(kd.losses.Hint(), "conv", "conv", adapter=None),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms)
    distiller.compile(keras.optimizers.SGD(0.0), LOSS)
    history = distiller.fit(train, verbose=0).history
    # The nets are equal: other images of the teacher would show.
    assert history["logit_regression"][0] < 1e-9 and history["hint"][0] < 1e-9
    z = student.predict(x, verbose=0).astype("float64")
    log_q = z - np.log(np.exp(z).sum(1, keepdims=True))
    np.testing.assert_allclose(
        history["label_loss"][0], -(y * log_q).sum(1).mean(), rtol=1e-5
    )
