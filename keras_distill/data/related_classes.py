"""Synthetic data with a chosen similarity of the classes and a chosen difficulty."""

import keras
import numpy as np

from keras_distill._backend.number_checks import check_finite, check_integers
from keras_distill.data.samples import Samples

_CLASSES, _SAMPLES = 0, 1


class RelatedClasses:
    r"""Synthetic points whose classes form super-classes of a chosen similarity.

    The C super-classes have orthonormal directions. Each of the K / C classes of a
    super-class has a unit vector `w_k` at the cosine `similarity` to its direction, so
    that two classes have a cosine of about `similarity^2` within a super-class and of
    about 0 otherwise. A point is standard normal in `features` dimensions. Its label is

    .. math::

        \arg\max_k \left( w_k \cdot x
            + \sum_{m=1}^{\mathrm{difficulty}} \sin(a_m (w_k \cdot x) + b_m) \right)

    with a_m = m and b_m = m - 1. With difficulty 0 a linear classifier separates the
    classes. Points are drawn in blocks, each from the seed and its index alone: any
    number of blocks can be drawn in any order, and none is kept in memory.

    Args:
        similarity: tau, 0 to 1, cosine of a class to its super-class; below 1 if a
            super-class has several classes. Default 0.5.
        difficulty: number of sines, 0 or more. Default 2.
        features: d, more than C. Default 500.
        classes: K, a multiple of C. Default 50.
        super_classes: C. Default 10.
        seed: seed of the directions and the points. Default 0.

    Attributes:
        class_vectors: w, `(K, d)`.
        groups: the classes of each super-class.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> data = kd.data.RelatedClasses(similarity=0.9)
        >>> train = data.batches("train", 500_000, 128)
        >>> held_out = data.samples("validation", 1000)
        >>> len(train), held_out.images.shape
        (3906, (1000, 500))

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation; after Ma
        et al. 2018, Modeling task relationships with multi-gate mixture-of-experts.
    """

    def __init__(
        self,
        similarity: float = 0.5,
        difficulty: int = 2,
        *,
        features: int = 500,
        classes: int = 50,
        super_classes: int = 10,
        seed: int = 0,
    ):
        check_finite(similarity=similarity)
        check_integers(0, difficulty=difficulty, seed=seed)
        sizes = {"features": features, "classes": classes}
        check_integers(1, super_classes=super_classes, **sizes)
        if not 0.0 <= similarity <= 1.0:
            raise ValueError(f"similarity is a cosine, 0 to 1; got {similarity}.")
        if super_classes < 1 or classes % super_classes or features <= super_classes:
            raise ValueError(
                "classes must be a multiple of super_classes, and features larger than "
                f"super_classes; got {classes}, {super_classes} and {features}."
            )
        if similarity == 1.0 and classes > super_classes:
            raise ValueError(
                "At a similarity of 1 the classes of a super-class are identical. Use a "
                "smaller similarity, or one class per super-class."
            )
        self.similarity, self.difficulty = similarity, difficulty
        self.features, self.classes, self.seed = features, classes, seed
        size = classes // super_classes
        self.groups = np.arange(classes).reshape(super_classes, size).tolist()
        self.class_vectors = self._class_vectors(super_classes, size)

    def _class_vectors(self, super_classes: int, size: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, _CLASSES])
        shape = self.features, super_classes
        basis = np.linalg.qr(rng.normal(size=shape))[0].T
        centers = np.repeat(basis, size, axis=0)
        # The offsets are orthogonal to the whole basis.
        offsets = rng.normal(size=(self.classes, self.features))
        offsets -= offsets @ basis.T @ basis
        offsets /= np.linalg.norm(offsets, axis=1, keepdims=True)
        sine = np.sqrt(1.0 - self.similarity**2)
        return (self.similarity * centers + sine * offsets).astype("float32")

    def labels(self, points: np.ndarray) -> np.ndarray:
        """Return the class of each point, `(N,)` for points `(N, d)`."""
        products = points @ self.class_vectors.T
        scores = products.copy()
        for m in range(1, self.difficulty + 1):
            scores += np.sin(m * products + (m - 1))
        return scores.argmax(axis=-1).astype("int32")

    def block(self, split: str, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw one block of a split: points `(size, d)`, float32, and their labels.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            index: index of the block.
            size: number of points in the block.

        Raises:
            ValueError: no such split.
        """
        splits = "train", "validation", "test"
        if split not in splits:
            raise ValueError(f"split is one of {', '.join(splits)}; got {split!r}.")
        rng = np.random.default_rng([self.seed, _SAMPLES, splits.index(split), index])
        points = rng.standard_normal((size, self.features), dtype="float32")
        return points, self.labels(points)

    def samples(self, split: str, count: int, block_size: int = 1024) -> Samples:
        """Draw points into one array, block by block.

        Args:
            split: as in `block`.
            count: number of points.
            block_size: points per block. Default 1024.
        """
        points = np.empty((count, self.features), "float32")
        labels = np.empty(count, "int32")
        for index, start in enumerate(range(0, count, block_size)):
            part = slice(start, min(count, start + block_size))
            size = part.stop - part.start
            points[part], labels[part] = self.block(split, index, size)
        return Samples(points, labels)

    def batches(
        self, split: str, count: int, batch_size: int = 128, *, shuffle: bool = True
    ) -> keras.utils.PyDataset:
        """Return batches that are drawn as they are read, the same in each epoch.

        Args:
            split: as in `block`.
            count: points per epoch; a last, smaller batch is dropped.
            batch_size: points per batch. Default 128.
            shuffle: whether to shuffle the batches anew in each epoch, by the seed.
                Default True. `fit` shuffles them again unless its `shuffle` is False.

        Returns:
            A `keras.utils.PyDataset` of `(points, labels)`, which `fit` accepts on any
            backend. A batch is a block, so the points depend on the batch size.

        Raises:
            ValueError: `count` is less than one batch.
        """
        check_integers(1, count=count, batch_size=batch_size)
        if not 0 < batch_size <= count:
            raise ValueError(
                f"count must be at least one batch; got {count} points in batches of "
                f"{batch_size}."
            )
        return _Blocks(self, split, count // batch_size, batch_size, shuffle)


class _Blocks(keras.utils.PyDataset):
    """Batches of `RelatedClasses`, drawn as they are read."""

    def __init__(self, source, split, count, size, shuffle):
        super().__init__()
        self.source, self.split, self.size = source, split, size
        self.shuffle, self.epoch = shuffle, 0
        self.order = np.arange(count)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int):
        return self.source.block(self.split, int(self.order[index]), self.size)

    def on_epoch_end(self) -> None:
        if self.shuffle:
            rng = np.random.default_rng([self.source.seed, self.epoch])
            self.order = rng.permutation(len(self.order))
        self.epoch += 1
