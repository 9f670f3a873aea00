"""Samples as arrays: batches, sample ids and transfer sets are plain indexing."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from keras_distill._backend.number_checks import check_finite, check_integers


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images and labels of one split, in the order of their sample ids.

    Args:
        images: `(N, H, W, C)`, float32 in `[0, 1]`, or uint8 as stored.
        labels: `(N,)`, int32.
        ids: `(N,)`, int64, the index of each sample in the split it came from.
            Default: `0..N-1`.

    Raises:
        ValueError: lengths differ, or labels are not one number per sample.

    Example:
        >>> samples = kd.data.Samples(images, labels)
        >>> samples[:10].labels.shape
        (10,)
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray | None = None

    def __post_init__(self):
        """Check lengths and number the samples."""
        if len(self.images) != len(self.labels):
            raise ValueError(
                "Images and labels must have the same length; got "
                f"{len(self.images)} images and {len(self.labels)} labels."
            )
        if np.shape(self.labels)[1:] == (1,):
            raise ValueError(
                f"labels is one number per sample, (N,); got {np.shape(self.labels)}. "
                "Use labels[:, 0]."
            )
        if self.ids is None:
            object.__setattr__(self, "ids", np.arange(len(self.labels)))

    def __repr__(self) -> str:
        """Return the shapes and types of images and labels."""
        parts = (
            (name, np.asarray(getattr(self, name))) for name in ("images", "labels")
        )
        texts = [f"{name}={values.shape} {values.dtype}" for name, values in parts]
        return f"{type(self).__name__}({', '.join(texts)})"

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    def __getitem__(self, index) -> "Samples":
        """Select samples by slice, index array or boolean mask; they keep their ids."""
        return Samples(self.images[index], self.labels[index], self.ids[index])

    def split(self, fraction: float, seed: int = 0) -> "tuple[Samples, Samples]":
        """Split at random into the rest and a fraction that is held out, e.g. for tuning.

        Raises:
            ValueError: `fraction` is not between 0 and 1.
        """
        check_finite(fraction=fraction)
        check_integers(0, seed=seed)
        if not 0.0 < fraction < 1.0:
            raise ValueError(f"fraction must be between 0 and 1; got {fraction}.")
        order = np.random.default_rng(seed).permutation(len(self))
        held_out = round(fraction * len(self))
        return self[np.sort(order[held_out:])], self[np.sort(order[:held_out])]

    def few(self, count: int, seed: int = 0) -> "Samples":
        """Draw `count` samples at random without replacement, in random order.

        Raises:
            ValueError: `count` is below 1 or exceeds the number of samples.
        """
        check_integers(0, count=count)
        check_integers(0, seed=seed)
        if not 0 < count <= len(self):
            raise ValueError(
                f"count must be 1 to {len(self)}, the number of samples; got {count}."
            )
        return self[np.random.default_rng(seed).permutation(len(self))[:count]]

    def only(self, classes: Iterable[int]) -> "Samples":
        """Keep only the samples of these classes, for a transfer set of a few classes."""
        return self[np.isin(self.labels, list(classes))]

    def without(self, classes: Iterable[int]) -> "Samples":
        """Leave out the samples of these classes, for a transfer set without them."""
        return self[~np.isin(self.labels, list(classes))]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A named image dataset: training and test samples and the number of classes.

    Example:
        >>> digits = kd.data.load("digits")
        >>> len(digits.train), len(digits.test), digits.classes
        (1438, 359, 10)
    """

    name: str
    train: Samples
    test: Samples
    classes: int

    def __repr__(self) -> str:
        """Return the name, and how many samples of which shape there are."""
        return (
            f"{type(self).__name__}({self.name!r}, train={len(self.train)}, "
            f"test={len(self.test)}, input_shape={self.input_shape}, "
            f"classes={self.classes})"
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one image, `(H, W, C)`."""
        return self.train.images.shape[1:]
