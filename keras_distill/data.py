"""Data sets by name, batches with augmentation and sample ids, transfer sets.

Small image sets are held as arrays, so that a batch, a sample id and a transfer
set are all plain indexing. TensorFlow, TFDS and scikit-learn are imported when a
function needs them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import keras
import numpy as np

from keras_distill.views import Views

__all__ = ["ImageSet", "Samples", "Views", "batches", "load"]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images and labels of one split, in the order of their sample ids.

    Args:
        images: `(N, H, W, C)`, float32 in `[0, 1]`, or uint8 as stored.
        labels: `(N,)`, int32.
        ids: `(N,)`, int64, the place of each sample in the split it came from.
            Default: `0..N-1`.

    Example:
        >>> samples = Samples(images, labels)
        >>> len(samples), samples[:100].labels.shape
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray | None = None

    def __post_init__(self):
        """Check lengths and number the samples."""
        if len(self.images) != len(self.labels):
            raise ValueError(
                "Images and labels must have one length, but there are "
                f"{len(self.images)} images and {len(self.labels)} labels."
            )
        if self.ids is None:
            object.__setattr__(self, "ids", np.arange(len(self.labels)))

    def __len__(self) -> int:
        """Give the number of samples."""
        return len(self.labels)

    def __getitem__(self, index) -> Samples:
        """Select samples by slice, index array or boolean mask; ids are kept."""
        return Samples(self.images[index], self.labels[index], self.ids[index])

    def split(self, fraction: float, seed: int = 0) -> tuple[Samples, Samples]:
        """Split at random in two: the rest, and `fraction` held out for tuning.

        Raises:
            ValueError: `fraction` does not lie between 0 and 1.
        """
        if not 0.0 < fraction < 1.0:
            raise ValueError(
                f"The held-out fraction must lie between 0 and 1, not {fraction}."
            )
        order = np.random.default_rng(seed).permutation(len(self))
        held_out = round(fraction * len(self))
        return self[np.sort(order[held_out:])], self[np.sort(order[:held_out])]

    def few(self, count: int, seed: int = 0) -> Samples:
        """Draw `count` samples at random, in random order.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 < count <= len(self):
            raise ValueError(
                f"A draw takes 1 to {len(self)} samples, as many as there are; "
                f"got {count}."
            )
        return self[np.random.default_rng(seed).permutation(len(self))[:count]]

    def only(self, classes: Iterable[int]) -> Samples:
        """Keep the samples of these classes: a transfer set of a few classes."""
        return self[np.isin(self.labels, list(classes))]

    def without(self, classes: Iterable[int]) -> Samples:
        """Leave these classes out: a transfer set that never shows them."""
        return self[~np.isin(self.labels, list(classes))]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A named image data set: training and test samples and the class count.

    Example:
        >>> digits = kd.data.load("digits")
        >>> len(digits.train), len(digits.test), digits.classes
        (1438, 359, 10)
    """

    name: str
    train: Samples
    test: Samples
    classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Give the shape of one image, `(H, W, C)`."""
        return self.train.images.shape[1:]


def load(name: str = "digits", data_dir: str | None = None) -> ImageSet:
    """Load an image classification data set by name, as arrays in memory.

    `"digits"` is scikit-learn's set of 1,797 real 8x8 images and needs no network;
    every fifth one is the test split. Any other name is a TFDS data set with an
    image, a label and the splits `train` and `test`: `mnist`, `cifar10`, ... TFDS
    reads `data_dir`, else the folder in `TFDS_DATA_DIR`, else it downloads.

    Args:
        name: data set name.
        data_dir: TFDS data folder. Default: TFDS's own.

    Returns:
        An `ImageSet`, images float32 in `[0, 1]`.

    Raises:
        ValueError: the data set can't be had; the message says what to do.

    Example:
        >>> digits = kd.data.load("digits")
        >>> digits.input_shape, digits.classes
        ((8, 8, 1), 10)
    """
    return _load_digits() if name == "digits" else _load_tfds(name, data_dir)


def _load_digits() -> ImageSet:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype("float32").reshape(-1, 8, 8, 1)
    labels = labels.astype("int32")
    test = np.arange(len(labels)) % 5 == 4
    train = Samples(images[~test], labels[~test])
    return ImageSet("digits", train, Samples(images[test], labels[test]), classes=10)


def _load_tfds(name: str, data_dir: str | None) -> ImageSet:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        train, test = (
            tfds.as_numpy(builder.as_dataset(split, batch_size=-1, as_supervised=True))
            for split in ("train", "test")
        )
    except Exception as error:
        raise ValueError(
            f"The data set '{name}' can't be had ({type(error).__name__}): connect to "
            "a network, set TFDS_DATA_DIR to a folder that holds it, or take "
            "'digits', which needs neither."
        ) from error
    classes = builder.info.features["label"].num_classes
    return ImageSet(name, _scaled(*train), _scaled(*test), classes)


def _scaled(images: np.ndarray, labels: np.ndarray) -> Samples:
    return Samples(images.astype("float32") / 255.0, labels.astype("int32"))


def batches(
    samples: Samples,
    batch_size: int = 128,
    *,
    shuffle: bool = False,
    seed: int = 0,
    augment: keras.Layer | Callable | Views | None = None,
    sample_ids: bool = False,
    drop_remainder: bool = False,
):
    """Turn samples into a `tf.data.Dataset` of batches `(images, labels)`.

    Args:
        samples: what to read.
        batch_size: samples a batch.
        shuffle: another order in each epoch. Default: the order of the samples.
        seed: of the order.
        augment: a Keras or KerasCV layer, or a function, called on each batch of
            images with `training=True` inside the data pipeline; or `Views`, of which
            each pass shows another one of each image.
        sample_ids: give `({"image": images, "sample_id": ids}, labels)` instead, with
            `Views` also the number of each image's as `"view"`.
        drop_remainder: leave out the last batch when it is smaller.

    Returns:
        A `tf.data.Dataset`.

    Raises:
        ValueError: there are no samples.
        ImportError: TensorFlow is not installed.

    Example:
        >>> train = kd.data.batches(digits.train, 64, shuffle=True)
        >>> distiller.fit(train, epochs=20)
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "kd.data.batches makes a tf.data pipeline, which Keras reads on every backend: "
            "pip install tensorflow, or give the arrays to fit."
        ) from error
    if not len(samples):
        raise ValueError("There are no samples to make batches of; got 0 samples.")
    inputs = {"image": samples.images, "sample_id": samples.ids}
    dataset = tf.data.Dataset.from_tensor_slices((inputs, samples.labels))
    if shuffle:
        dataset = dataset.shuffle(len(samples), seed=seed)
    if isinstance(augment, Views):
        dataset, augment = augment.drawn(dataset), None
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder)

    def arrange(inputs, labels):
        if augment is not None:
            inputs = {**inputs, "image": augment(inputs["image"], training=True)}
        return (inputs if sample_ids else inputs["image"]), labels

    # One call at a time: a layer's random numbers then come in the order of the batches.
    return dataset.map(arrange).prefetch(tf.data.AUTOTUNE)
