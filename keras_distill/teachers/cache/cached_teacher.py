"""A teacher whose outputs are on disk."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from keras_distill import strategies
from keras_distill import taps as tapping
from keras_distill.data.selection import Selection
from keras_distill.data.views import Views
from keras_distill.taps import Tap
from keras_distill.teachers.cache import cache_checks as checks
from keras_distill.teachers.cache import contents, fingerprints, rows, sources
from keras_distill.teachers.cache.building import Building
from keras_distill.teachers.cache.joining import KNOWLEDGE, Joining
from keras_distill.teachers.cache.reading import Reader
from keras_distill.teachers.cache.recipe import Recipe
from keras_distill.teachers.ensemble import as_teacher
from keras_distill.teachers.teacher import Teacher


class CachedTeacher(Teacher):
    """A teacher that is paid for once: its outputs are kept on disk and read from there.

    `build` shows the teacher each sample once; `join` puts what it said beside the
    samples of a training set, by their ids, in any order and any batch size. A distiller
    takes it as it takes the teacher itself.

    Beside each sample's outputs the cache keeps a sketch of what the teacher was shown.
    A sample that the student would see otherwise, augmented at random or changed, is an
    error. For augmentation that can be replayed give `views`.

    With `top_k` a prediction is kept as its k largest probabilities at the
    temperature T and the mass of the rest, which is spread evenly when it is read:

        p_j for the k largest of p = softmax(z_t / T),  (1 - sum of those) / (K - k) else

    which 1,000 classes and k = 32 keep in less than 140 bytes a sample.

    Args:
        folder: of the cache, one that all workers see.
        teacher: a built model or a teacher; None to read what is there.
        taps: layers to keep, as in a term. Default: the logits.
        top_k: keep so many classes of each prediction. Default: all logits.
        temperature: T of the predictions; needed with `top_k` and for an ensemble,
            whose average depends on it.
        dtype: of all else that is kept, `"float16"` (default) or `"float32"`.
        views: replayable augmentation, `kd.data.Views`. Default: none.
        inputs: the teacher's part of the data's inputs. Default: `"image"`.
        preprocessing: a layer between that part and the teacher, such as
            `keras.layers.Resizing`. Default: none.
        sample_ids: key of the ids in the inputs. Default: `"sample_id"`.

    Raises:
        TypeError: the teacher is none, or views are something else.
        ValueError: a tap that can't be kept, `top_k` without a temperature, no teacher
            and no cache, a cache of something else.

    Example:
        >>> cached = kd.CachedTeacher("cache", teacher, top_k=5, temperature=4.0)
        >>> cached.build(digits.train)
        >>> train = kd.data.batches(digits.train, 128, shuffle=True, sample_ids=True)
        >>> distiller = kd.Distiller(student, cached, student_inputs="image")
        >>> distiller.compile("adam", loss)
        >>> distiller.fit(cached.join(train), epochs=20)

    Source:
        Top classes and the rest: Tang et al. 2020, Understanding and improving
        knowledge distillation.
    """

    models = ()

    def __init__(
        self,
        folder: str | os.PathLike,
        teacher: keras.Model | Teacher | None = None,
        *,
        taps: str | Tap | Iterable[str | Tap] = "logits",
        top_k: int | None = None,
        temperature: float | None = None,
        dtype: str = "float16",
        views: Views | None = None,
        inputs: Selection = "image",
        preprocessing: keras.Layer | None = None,
        sample_ids: str = "sample_id",
    ):
        self.folder = pathlib.Path(folder)
        self.inputs, self.sample_ids = inputs, sample_ids
        self.contents, self._reader = contents.read(self.folder), None
        self.recipe = None
        if teacher is not None:
            self.recipe = Recipe(
                as_teacher(teacher),
                tapping.as_taps(taps),
                top_k=top_k,
                temperature=temperature,
                dtype=dtype,
                views=views,
                inputs=inputs,
                preprocessing=preprocessing,
            )
        elif self.contents is None:
            raise ValueError(
                f"There is no cache in '{folder}' and no teacher to make one. Give the "
                "teacher, and call build(data)."
            )
        if self.recipe and self.contents:
            self._is_of(self.recipe.fingerprints())

    def build(
        self,
        data,
        batch_size: int = 256,
        *,
        shard_rows: int = 16384,
        patience: float = 60.0,
        verbose: int = 1,
    ) -> CachedTeacher:
        """Show the teacher every sample whose outputs are not there yet.

        It can be stopped at any moment, and goes on at the first shard that is not
        whole; a damaged shard is made anew. Processes that are called with the same
        folder share the work; under a strategy of several workers each begins with its
        own shards, and takes those of a worker that has died.

        Args:
            data: `kd.data.Samples`, or a `tf.data.Dataset` of batches whose inputs are a
                dict with sample ids, in the same order each time, not augmented.
            batch_size: samples the teacher is shown at a time.
            shard_rows: rows a file; what is lost when a process dies.
            patience: seconds after which a process that gives no sign is taken for dead.
            verbose: 0 shows nothing, 1 the size, the time that it takes and a bar.

        Returns:
            Itself.

        Raises:
            TypeError: the data are something else.
            ValueError: there is no teacher, it was made of other data, data are empty
                or have no end, ids are there twice, a batch or a shard has no rows, a
                tap has no fixed shape, what the teacher says is not finite in the type
                that it is kept in.
            OSError: the disk is full; what is whole stays.
        """
        if self.recipe is None:
            raise ValueError("Only a cache that was given its teacher can be built.")
        checks.are_counts(batch_size=batch_size, shard_rows=shard_rows)
        image = self.inputs if isinstance(self.inputs, str) else "image"
        source = sources.source(data, self.recipe.views, self.sample_ids, image)
        made_of = {**self.recipe.fingerprints(), "data": source.fingerprint}
        if self.contents is None:
            self.contents = self.recipe.contents(source, made_of, shard_rows)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.contents.write(self.folder)
        self._is_of(made_of)
        shards = self.contents.shards(self.folder)
        shards.remove_damaged()
        run = self.recipe.runner(self.contents, batch_size)
        making = Building(
            shards, source, self.contents.per_view, run, batch_size, self.sample_ids
        )
        making.make(*strategies.worker(), patience=patience, verbose=verbose)
        self._reader = None
        if verbose:
            print(
                f"Cache: {self.distance:.2g} nats a sample from the full predictions."
            )
        return self

    @property
    def distance(self) -> float:
        """Give the mean divergence of what is kept from the full predictions, in nats."""
        return self._open().distance

    @property
    def bytes_per_sample(self) -> float:
        """Give what a sample, in each of its views, takes on disk."""
        shards = self.contents.shards(self.folder)
        sizes = [shards.path(n).stat().st_size for n in range(len(shards.counts))]
        return sum(sizes) / sum(shards.counts)

    def read(self, ids: np.ndarray, views: np.ndarray | int = 0) -> dict:
        """Give what is kept of samples: for each tap, arrays by the part's name.

        Args:
            ids: of the samples, `(B,)`.
            views: which view of each, `(B,)` or one number. Default 0.

        Raises:
            ValueError: there is no such sample or view, or shards are not whole.

        Example:
            >>> cached.read([3, 1])["logits"]["all"].shape
            (2, 10)
        """
        return rows.unpack(self._open().read(np.asarray(ids), views))

    def join(self, dataset):
        """Put what the teacher said beside each sample, as `"knowledge"` of its inputs.

        Args:
            dataset: a `tf.data.Dataset` of batches whose inputs are a dict with sample
                ids, shuffled, filtered and repeated as you like.

        Returns:
            A `tf.data.Dataset` to fit a distiller on.

        Raises:
            ValueError: there are no ids, or what the first batch shows is not what the
                teacher was shown.
        """
        joining = Joining(self._open(), self.contents, self.inputs, self.sample_ids)
        return joining.join(dataset)

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Give the tapped tensors out of a batch that was joined."""
        if not isinstance(inputs, dict) or KNOWLEDGE not in inputs:
            raise ValueError(
                "The batch does not carry what the cached teacher said: fit on "
                "cached.join(dataset), and let teacher_inputs be all of the inputs."
            )
        kept, shapes = inputs[KNOWLEDGE], self.contents.shapes
        return {
            tap: self.contents.forms[str(tap)].restore(kept[str(tap)], shapes[str(tap)])
            for tap in taps
        }

    def find_norm(self, inputs, tap: Tap) -> None:
        """Refuse: the statistics of a normalisation are not kept."""
        raise ValueError(
            f"The normalisation behind '{tap}' is in no cache. Give the teacher itself to "
            "a distiller whose loss needs it."
        )

    def head_classes(self, inputs, tap: Tap) -> int:
        """Refuse: weights are not kept."""
        raise ValueError(
            f"The last layer behind '{tap}' is in no cache. Compare logits by "
            "kd.losses.SoftTarget, or give the teacher itself to the distiller."
        )

    def can_teach(self, terms: Sequence) -> None:
        """Check that the cache has what terms ask for, at their temperatures."""
        if self.contents is None:
            raise ValueError(
                f"The cache in '{self.folder}' is empty: call build(data)."
            )
        checks.knows(self.contents, terms)

    def _open(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self.folder, self.contents)
        return self._reader

    def _is_of(self, made_of: dict) -> None:
        fingerprints.compare(self.contents.made_of, made_of, self.folder)
