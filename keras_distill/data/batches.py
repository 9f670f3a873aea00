"""Batches as a `tf.data` pipeline, with augmentation and sample ids."""

from collections.abc import Callable

import keras
import numpy as np

from keras_distill._backend.number_checks import check_integers
from keras_distill._backend.optional import require
from keras_distill.data.samples import Samples
from keras_distill.data.views import Views


def batches(
    samples: Samples,
    batch_size: int = 128,
    *,
    shuffle: bool = False,
    seed: int = 0,
    augment: keras.Layer | Callable | Views | None = None,
    classes: int | None = None,
    sample_ids: bool = False,
    drop_remainder: bool = False,
):
    """Create a `tf.data.Dataset` of batches `(images, labels)` from samples.

    Args:
        samples: the samples to read.
        batch_size: samples per batch. Default 128.
        shuffle: whether to shuffle the samples anew in each epoch. Default False.
        seed: seed of the order. Default 0.
        augment: a Keras or KerasCV layer, or a function, called on each batch of
            images with `training=True` inside the data pipeline; or `Views`, which
            draw a view of each image at random in each pass. Default: none.
        classes: number of classes, which makes each label a row of `classes` numbers
            for the categorical cross-entropy. `augment` is then called on a dict of
            `"images"` and `"labels"` and may mix both, as `keras.layers.MixUp` and
            `CutMix` do. Default: labels as they are.
        sample_ids: whether to return `({"image": images, "sample_id": ids}, labels)`
            instead, with `Views` also each image's view number as `"view"`.
        drop_remainder: whether to drop the last batch if it is smaller.

    Returns:
        A `tf.data.Dataset`.

    Raises:
        ValueError: there are no samples, or labels outside of the classes.
        ImportError: TensorFlow is not installed.

    Example:
        >>> train = kd.data.batches(digits.train, 64, shuffle=True)
        >>> distiller.fit(train, epochs=2)

        Student and teacher see the same mixed images, and their mixed labels:

        >>> mixed = kd.data.batches(
        ...     digits.train, 64, shuffle=True, augment=keras.layers.MixUp(), classes=10
        ... )
    """
    tf = require("tensorflow", "kd.data.batches")
    check_integers(1, batch_size=batch_size)
    check_integers(0, seed=seed)
    if not len(samples):
        raise ValueError("Expected at least one sample to batch; got no samples.")
    _check_classes(samples.labels, classes)
    inputs = {"image": samples.images, "sample_id": samples.ids}
    dataset = tf.data.Dataset.from_tensor_slices((inputs, samples.labels))
    if shuffle:
        dataset = dataset.shuffle(len(samples), seed=seed)
    if isinstance(augment, Views):
        dataset, augment = augment.drawn(dataset), None
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder)

    def arrange(inputs, labels):
        labels = labels if classes is None else tf.one_hot(labels, classes)
        images, labels = _augmented(augment, inputs["image"], labels, classes)
        return ({**inputs, "image": images} if sample_ids else images), labels

    # Without parallel calls a layer draws random numbers in the order of the batches.
    return without_tuning(dataset.map(arrange).prefetch(tf.data.AUTOTUNE))


def without_tuning(dataset):
    """Return a `tf.data.Dataset` whose iterators end at once on TensorFlow.

    While numbers of parallel calls are tuned, a thread sleeps for up to a minute at a
    time, and on a busy CPU the end of an iterator, so of an epoch, often waits for it.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _augmented(augment, images, labels, classes: int | None) -> tuple:
    if augment is None:
        return images, labels
    if classes is None:
        return augment(images, training=True), labels
    both = augment({"images": images, "labels": labels}, training=True)
    return both["images"], both["labels"]


def _check_classes(labels: np.ndarray, classes: int | None) -> None:
    if classes is None:
        return
    check_integers(2, classes=classes)
    least, most = int(np.min(labels)), int(np.max(labels))
    if least < 0 or most >= classes:
        raise ValueError(
            f"Labels must be 0 to {classes - 1} for {classes} classes; got {least} to {most}."
        )
