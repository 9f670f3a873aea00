"""Image datasets by name; TFDS and scikit-learn are imported when needed."""

from collections.abc import Sequence

import numpy as np

from keras_distill._backend.optional import require
from keras_distill.data.samples import ImageSet, Samples


def load(name: str = "digits", data_dir: str | None = None) -> ImageSet:
    """Load an image classification dataset by name, as arrays in memory.

    `"digits"` is scikit-learn's set of 1,797 real 8x8 images and needs no network;
    every fifth image is in the test split. Any other name is a TFDS dataset with an
    image, a label and the splits `train` and `test`: `mnist`, `cifar10`, ... TFDS reads
    it from `data_dir` or the folder in `TFDS_DATA_DIR`, or else downloads it.

    Args:
        name: name of the dataset. Default `"digits"`.
        data_dir: TFDS data folder. Default: that of TFDS.

    Returns:
        An `ImageSet`, images float32 in `[0, 1]`.

    Raises:
        ValueError: the dataset could not be loaded.

    Example:
        >>> digits = kd.data.load("digits")
        >>> digits.input_shape, digits.classes
        ((8, 8, 1), 10)
    """
    return _load_digits() if name == "digits" else _load_tfds(name, data_dir)


def _load_digits() -> ImageSet:
    datasets = require("sklearn.datasets", 'kd.data.load("digits")')
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16.0).astype("float32").reshape(-1, 8, 8, 1)
    labels = labels.astype("int32")
    test = np.arange(len(labels)) % 5 == 4
    train = Samples(images[~test], labels[~test])
    return ImageSet("digits", train, Samples(images[test], labels[test]), classes=10)


def _load_tfds(name: str, data_dir: str | None) -> ImageSet:
    info, splits = read_tfds(name, data_dir, ("train", "test"), as_supervised=True)
    train, test = (
        Samples(images.astype("float32") / 255.0, labels.astype("int32"))
        for images, labels in splits
    )
    return ImageSet(name, train, test, info.features["label"].num_classes)


def read_tfds(name: str, data_dir: str | None, splits: Sequence[str], **options):
    """Return the description of a TFDS dataset, and the arrays of each split."""
    tfds = require("tensorflow_datasets", "kd.data.load")
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        datasets = [builder.as_dataset(x, batch_size=-1, **options) for x in splits]
        return builder.info, [tfds.as_numpy(dataset) for dataset in datasets]
    except Exception as error:
        raise ValueError(
            f"The dataset '{name}' could not be loaded ({type(error).__name__}): connect "
            "to a network, or set TFDS_DATA_DIR to a folder that contains it. "
            'kd.data.load("digits") needs neither.'
        ) from error
