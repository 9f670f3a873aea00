"""A teacher whose outputs are cached on disk."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import ClassVar

import keras
import numpy as np

from keras_distill import strategies
from keras_distill import taps as tapping
from keras_distill._backend.files import remove_left_over
from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill._backend.own_arrays import MappedDataset
from keras_distill.data.selection import Selection
from keras_distill.data.views import Views
from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import HEAD, NORM, BaseTeacher, Request
from keras_distill.teachers.cache import cache_checks as checks
from keras_distill.teachers.cache import contents, rows, sources
from keras_distill.teachers.cache.building import Builder
from keras_distill.teachers.cache.joining import KNOWLEDGE, Joiner
from keras_distill.teachers.cache.reading import Reader
from keras_distill.teachers.cache.recipe import Recipe
from keras_distill.teachers.ensemble import as_teacher


class CachedTeacher(BaseTeacher):
    r"""A teacher whose outputs are computed once, then read from disk.

    `build` runs the teacher once on each sample; `join` adds the cached outputs to the
    samples of a training set by their ids, in any order and any batch size. A distiller
    takes the cache in place of the teacher.

    With each sample's outputs the cache stores a sketch of the teacher's input, of
    integers a number that a change of any of them changes. A sample whose input differs in
    training, because it is augmented at random or has changed, raises an error. For
    augmentation that can be replayed pass `views`. The mask of a tapped tensor is cached
    with it, and leaves padding out as that of the teacher does.

    With `top_k` a prediction is stored as its k largest probabilities at the
    temperature T and the sum of the others, which is spread evenly when it is read:

    .. math::

        p &= \mathrm{softmax}(z_t / T)

        \mathrm{target}_j &= p_j \text{ for the } k \text{ largest}

        \mathrm{target}_j &= \frac{1 - \sum_{\mathrm{largest}} p_i}{K - k}
            \text{ for the others}

    With 1,000 classes and k = 32 this takes less than 140 bytes a sample. The logits that
    are read are log-probabilities, which losses of raw logits refuse, such as
    `kd.losses.LogitRegression()` or `kd.losses.Hint`.

    Args:
        folder: directory of the cache, visible to all workers.
        teacher: a built model or a teacher; None to read an existing cache.
        taps: layers to cache, as in a term. Default: the logits.
        top_k: number of classes to store of each prediction, for losses that take a
            softmax of the logits. Default: all logits.
        temperature: T of the predictions; required with `top_k` and for an ensemble,
            whose average depends on it. At most 100, or 1,000 for an ensemble whose
            `dtype` is `"float32"`.
        dtype: of all other cached values, `"float16"` (default) or `"float32"`.
        views: replayable augmentation, `kd.data.Views`. Default: none.
        inputs: the teacher's part of the data's inputs. Default: `"image"`.
        preprocessing: a layer applied to that part before the teacher, such as
            `keras.layers.Resizing`. Default: none.
        sample_ids: key of the ids in the inputs. Default: `"sample_id"`.

    Raises:
        TypeError: `teacher` is not a teacher, `views` is not a `kd.data.Views`, or
            `preprocessing` is not a layer.
        ValueError: a tap can't be cached, `top_k` has no temperature or one that is too
            high, there is neither a teacher nor a cache, or the cache was built with
            something else.

    Example:
        >>> cached = kd.CachedTeacher("cache", teacher, top_k=5, temperature=4.0)
        >>> cached.build(digits.train)
        >>> train = kd.data.batches(digits.train, 128, shuffle=True, sample_ids=True)
        >>> distiller = kd.Distiller(student, cached, student_inputs="image")
        >>> distiller.compile("adam", loss)
        >>> distiller.fit(cached.join(train), epochs=2)

    Source:
        Top classes and the rest: Tang et al. 2020, Understanding and improving
        knowledge distillation.
    """

    lacks: ClassVar[dict] = {
        **BaseTeacher.lacks,
        NORM: "No cache has the statistics of a normalization. Pass the teacher itself to "
        "the distiller.",
        HEAD: "No cache has the weights of a last layer. Compare logits by "
        "kd.losses.SoftTarget, or pass the teacher itself to the distiller.",
    }

    def __init__(
        self,
        folder: str | os.PathLike,
        teacher: keras.Model | BaseTeacher | None = None,
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
        super().__init__()
        checks.check_folder(folder)
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
                f"There is no cache in '{folder}' and no teacher to build one. Pass the "
                "teacher, and call build(data)."
            )
        if self.recipe and self.contents:
            self._check_made_of(self.recipe.fingerprints())

    def build(
        self,
        data,
        batch_size: int = 256,
        *,
        shard_rows: int = 16384,
        patience: float = 60.0,
        verbose: int = 1,
    ) -> "CachedTeacher":
        """Run the teacher on every sample whose outputs are not cached yet.

        A build can be interrupted at any moment and continues with the first incomplete
        shard; a damaged shard is built again. Processes that call it on the same folder
        share the work; under a strategy with several workers each begins with its own
        shards, and takes over those of a worker that has died.

        Args:
            data: `kd.data.Samples`, or a `tf.data.Dataset` of batches whose inputs are a
                dict with sample ids, in the same order each time, not augmented.
            batch_size: samples that the teacher is run on at once.
            shard_rows: rows per file; a process that dies loses at most these.
            patience: seconds without a sign of life after which a process counts as dead.
            verbose: 0 is silent, 1 prints size and expected time and shows a progress
                bar with the time left.

        Returns:
            The cache itself.

        Raises:
            TypeError: the data have another type.
            ValueError: there is no teacher or it assigns to a state of its own as it runs,
                the cache was built from other data, the data are empty, infinite, not
                finite or in changing order, ids are not unique integers from 0, a batch
                or a shard has no rows, a tap has no fixed shape, or outputs of the teacher
                are not finite in the type that they are stored in.
            OSError: the disk is full; complete shards stay.
        """
        if self.recipe is None:
            raise ValueError(
                "Building a cache needs its teacher: pass one to kd.CachedTeacher."
            )
        check_integers(1, batch_size=batch_size, shard_rows=shard_rows)
        check_in(0, patience=patience)
        views = self.recipe.views
        source = sources.source(data, views, self.sample_ids, self.inputs)
        made_of = {**self.recipe.fingerprints(), "data": source.fingerprint}
        if self.contents is None:
            self._begin(source, made_of, shard_rows)
        self._check_made_of(made_of)
        shards = self.contents.shards(self.folder)
        shards.remove_damaged()
        run = self.recipe.runner(batch_size, self.contents.masks)
        exact = self.contents.exact
        builder = Builder(shards, exact, source, self.sample_ids, run, batch_size)
        builder.build(*strategies.worker(), patience=patience, verbose=verbose)
        self._reader = None
        if verbose:
            print(f"Cache: mean KL divergence {self.distance:.2g} nats a sample.")
        return self

    @property
    def distance(self) -> float:
        """The mean KL divergence between full and cached predictions, in nats."""
        return self._open().distance

    @property
    def predicts(self) -> str | None:
        """What the members of a cached ensemble predict, None by default."""
        return self.contents and self.contents.made_of.get("predicts")

    @property
    def bytes_per_sample(self) -> float:
        """The bytes on disk that one view of a sample takes."""
        shards = self.contents.shards(self.folder)
        sizes = [shards.path(n).stat().st_size for n in range(len(shards.counts))]
        return sum(sizes) / sum(shards.counts)

    def read(self, ids: np.ndarray, views: np.ndarray | int = 0) -> dict:
        """Return the cached values of samples: for each tap a dict of named arrays.

        Args:
            ids: of the samples, `(B,)`.
            views: index of each sample's view, `(B,)` or one number. Default 0.

        Raises:
            ValueError: there is no such sample or view, or shards are incomplete, damaged,
                in each other's place or of another cache.

        Example:
            >>> cached = kd.CachedTeacher("cache", teacher).build(digits.train)
            >>> cached.read([3, 1])["logits"]["all"].shape
            (2, 10)
        """
        return rows.unpack(self._open().read(np.asarray(ids), views))

    def join(self, dataset):
        """Add the cached outputs of each sample to its inputs, as `"knowledge"`.

        Args:
            dataset: a `tf.data.Dataset` or `keras.utils.PyDataset` of batches whose
                inputs are a dict with sample ids; it may be shuffled, filtered and
                repeated. Or such a dict of arrays, whose cached outputs are all read into
                memory.

        Returns:
            What was passed, joined, to fit a distiller on.

        Raises:
            TypeError: the data have another type.
            ValueError: there are no ids, or the first batch differs from the inputs that
                the teacher was run on.
        """
        joiner = Joiner(self._open(), self.inputs, self.sample_ids)
        if hasattr(dataset, "element_spec"):
            return joiner.join(dataset)
        if isinstance(dataset, keras.utils.PyDataset):
            return MappedDataset(dataset, joiner.join_batch)
        if isinstance(dataset, dict):
            return joiner.join_batch(dataset)
        raise TypeError(
            "A cache is joined with a tf.data.Dataset or keras.utils.PyDataset of batches, "
            f"or with a dict of arrays; got {type(dataset).__name__}."
        )

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Return the tapped tensors of a batch that was joined."""
        if not isinstance(inputs, dict) or KNOWLEDGE not in inputs:
            raise ValueError(
                "The batch has no cached outputs of the teacher: fit on "
                "cached.join(dataset), and let teacher_inputs select all inputs. With "
                "validate_terms, validation data are joined too, and so are in the cache; "
                "leave it out to evaluate the student alone."
            )
        return {
            tap: self.contents.decode(str(tap), inputs[KNOWLEDGE][str(tap)])
            for tap in taps
        }

    def check(self, requests: Sequence[Request]) -> None:
        """Check that the cache has what terms need, at their temperatures."""
        if self.contents is None:
            raise ValueError(
                f"The cache in '{self.folder}' is empty: call build(data)."
            )
        super().check(requests)
        checks.check_requests(self.contents, requests)

    def _begin(self, source, made_of: dict, shard_rows: int) -> None:
        """Write what the cache will contain, or read what another process wrote first."""
        self.contents = self.recipe.contents(source, made_of, shard_rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.contents.write(self.folder):
            self.contents = contents.read(self.folder)

    def _open(self) -> Reader:
        if self._reader is None:
            remove_left_over(self.folder)
            self._reader = Reader(self.folder, self.contents)
        return self._reader

    def _check_made_of(self, made_of: dict) -> None:
        checks.check_made_of(self.contents.made_of, made_of, self.folder)
