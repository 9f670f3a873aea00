"""Made-up data whose classes are as alike, and as hard to part, as one asks for."""

from __future__ import annotations

import keras
import numpy as np

from keras_distill.data.samples import Samples

_CLASSES, _SAMPLES = 0, 1


class RelatedClasses:
    """Points whose classes come in groups, with a likeness that is chosen.

    Each of C super-classes has a direction, orthonormal to the others, and each of its
    K / C classes a unit vector `w_k` at the cosine `similarity` to it, so that two
    classes of one super-class are at about `similarity^2` to each other, and those of
    different ones at about 0. A point is normal in all `features`, and its label is

        argmax_k  w_k . x + sum_{m=1}^{difficulty} sin(a_m (w_k . x) + b_m)

    with a_m = m and b_m = m - 1, so that with difficulty 0 the classes can be parted by
    a linear rule. Points are drawn in blocks, each from the seed and its number alone:
    any number of them is made as it is read, in any order, and none is kept.

    Args:
        similarity: tau, 0 to 1, of a class to its super-class; below 1 where a
            super-class has several. Default 0.5.
        difficulty: how many sines, 0 or more. Default 2.
        features: d, more than C. Default 500.
        classes: K, a multiple of C. Default 50.
        super_classes: C. Default 10.
        seed: of directions and points. Default 0.

    Attributes:
        class_vectors: w, `(K, d)`.
        groups: the classes of each super-class.

    Raises:
        ValueError: numbers that do not go together.

    Example:
        >>> data = kd.data.RelatedClasses(similarity=0.9)
        >>> student.fit(data.batches("train", 500_000, 128), epochs=10)
        >>> held_out = data.samples("validation", 50_000)

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
        if not 0.0 <= similarity <= 1.0:
            raise ValueError(f"similarity is a cosine, 0 to 1; got {similarity}.")
        if difficulty < 0:
            raise ValueError(f"difficulty is 0 or more sines; got {difficulty}.")
        if super_classes < 1 or classes % super_classes or features <= super_classes:
            raise ValueError(
                "classes are a multiple of super_classes, and features more than these; "
                f"got {classes}, {super_classes} and {features}."
            )
        if similarity == 1.0 and classes > super_classes:
            raise ValueError(
                "At a similarity of 1 the classes of a super-class are one and the same. "
                "Give less, or as many super_classes as classes."
            )
        self.similarity, self.difficulty = similarity, difficulty
        self.features, self.classes, self.seed = features, classes, seed
        each = classes // super_classes
        self.groups = [
            list(range(each * group, each * (group + 1)))
            for group in range(super_classes)
        ]
        self.class_vectors = self._class_vectors(super_classes, each)

    def _class_vectors(self, super_classes: int, each: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, _CLASSES])
        shape = self.features, super_classes
        basis = np.linalg.qr(rng.normal(size=shape))[0].T
        centres = np.repeat(basis, each, axis=0)
        # What is added is orthogonal to all of the basis.
        own = rng.normal(size=(self.classes, self.features))
        own -= own @ basis.T @ basis
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        rest = np.sqrt(1.0 - self.similarity**2)
        return (self.similarity * centres + rest * own).astype("float32")

    def labels(self, points: np.ndarray) -> np.ndarray:
        """Give the class of each point, `(N,)`.

        Args:
            points: `(N, d)`.
        """
        along = points @ self.class_vectors.T
        scores = along.copy()
        for m in range(1, self.difficulty + 1):
            scores += np.sin(m * along + (m - 1))
        return scores.argmax(axis=-1).astype("int32")

    def block(self, split: str, place: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw one block of a split: points `(size, d)`, float32, and their labels.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            place: number of the block.
            size: points in it.

        Raises:
            ValueError: another split.
        """
        splits = "train", "validation", "test"
        if split not in splits:
            raise ValueError(f"The splits are {', '.join(splits)}; got {split!r}.")
        rng = np.random.default_rng([self.seed, _SAMPLES, splits.index(split), place])
        points = rng.standard_normal((size, self.features), dtype="float32")
        return points, self.labels(points)

    def samples(self, split: str, count: int, block_size: int = 1024) -> Samples:
        """Draw points into one array, which is filled block by block.

        Args:
            split: as in `block`.
            count: how many.
            block_size: points of each block. Default 1024.
        """
        points = np.empty((count, self.features), "float32")
        labels = np.empty(count, "int32")
        for place, start in enumerate(range(0, count, block_size)):
            part = slice(start, min(count, start + block_size))
            size = part.stop - part.start
            points[part], labels[part] = self.block(split, place, size)
        return Samples(points, labels)

    def batches(
        self, split: str, count: int, batch_size: int = 128, *, shuffle: bool = True
    ) -> keras.utils.PyDataset:
        """Give batches that are drawn as they are read, the same in each epoch.

        Args:
            split: as in `block`.
            count: points in an epoch; a last, smaller batch is left out.
            batch_size: points of a batch. Default 128.
            shuffle: another order of the batches in each epoch, by the seed. Default
                True. `fit` shuffles them once more unless it is given shuffle=False.

        Returns:
            A `keras.utils.PyDataset` of `(points, labels)`, which `fit` takes with any
            backend. A batch is a block, so another batch size gives other points.

        Raises:
            ValueError: not even one batch.
        """
        if not 0 < batch_size <= count:
            raise ValueError(
                f"count holds a batch or more; got {count} in batches of {batch_size}."
            )
        return _Blocks(self, split, count // batch_size, batch_size, shuffle)


class _Blocks(keras.utils.PyDataset):
    """Batches of `RelatedClasses`, of which none is kept."""

    def __init__(self, source, split, count, size, shuffle):
        super().__init__()
        self.source, self.split, self.size = source, split, size
        self.shuffle, self.epoch = shuffle, 0
        self.order = np.arange(count)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int):
        return self.source.block(self.split, int(self.order[place]), self.size)

    def on_epoch_end(self) -> None:
        if self.shuffle:
            rng = np.random.default_rng([self.source.seed, self.epoch])
            self.order = rng.permutation(len(self.order))
        self.epoch += 1
