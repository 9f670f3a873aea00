"""Data that a cache is built from, readable from a start to a stop index."""

import hashlib
from collections.abc import Iterator

import numpy as np

from keras_distill import data
from keras_distill.data import Samples
from keras_distill.data.selection import Selection, keys_of
from keras_distill.data.views import Views
from keras_distill.teachers.cache import fingerprints
from keras_distill.teachers.cache.cache_checks import check_kinds


class ArraySource:
    """Samples in memory, or views of them."""

    def __init__(
        self,
        samples: Samples,
        views: Views | None,
        sample_ids: str,
        selection: Selection,
    ):
        if sample_ids != "sample_id":
            raise ValueError(
                "The ids of kd.data.Samples have the key 'sample_id'; got "
                f"{sample_ids!r}. Leave sample_ids out, or pass a tf.data.Dataset."
            )
        _check_ids(samples.ids, len(samples))
        _check_inputs({"image": samples.images}, selection, samples.ids)
        self.samples, self.views = samples, views
        self.count = len(samples)
        self.ids, self.largest_id = samples.ids, int(samples.ids.max())
        self.fingerprint = fingerprints.of_samples(samples)

    def read(self, view: int, start: int, stop: int, size: int) -> Iterator[dict]:
        """Yield the inputs of samples, as NumPy arrays, `size` at a time."""
        part = self.samples[start:stop]
        if self.views is None:
            for first in range(0, len(part), size):
                batch = part[first : first + size]
                yield {"image": batch.images, "sample_id": batch.ids}
            return
        singles = data.batches(part, 1, sample_ids=True).unbatch()
        batches = self.views.only(singles, view).batch(size)
        yield from (x for x, _ in batches.as_numpy_iterator())


class StreamSource:
    """A finite `tf.data.Dataset` of batches, read from start to end.

    Args:
        dataset: yields dicts with sample ids, or tuples that begin with one, each time
            in the same order.
        views: of each sample, or None for the samples themselves.
        sample_ids: key of the ids.
        selection: the teacher's part of the data's inputs.
    """

    def __init__(
        self, dataset, views: Views | None, sample_ids: str, selection: Selection
    ):
        spec = dataset.element_spec
        spec = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(spec, dict) or sample_ids not in spec:
            raise ValueError(
                f"A cache is keyed by sample ids: the data's inputs must be a dict with "
                f"'{sample_ids}'; got {spec}. Add it, as kd.data.batches(..., "
                "sample_ids=True) or dataset.enumerate() do, or pass its key as sample_ids."
            )
        check_spec_of_ids(spec[sample_ids], sample_ids)
        batches = dataset.map(_inputs)
        self.singles = batches.unbatch()
        self.views, self.key = views, sample_ids
        # The views augment the images.
        self.image = selection if isinstance(selection, str) else "image"
        ids, self.fingerprint = _scan(batches, sample_ids, selection)
        _check_ids(ids, len(ids))
        self.ids, self.count, self.largest_id = ids, len(ids), int(ids.max())
        self._open = None

    def read(self, view: int, start: int, stop: int, size: int) -> Iterator[dict]:
        """Yield the inputs of samples, as NumPy arrays, `size` at a time."""
        reader, at = self._open or (None, (-1, 0))
        # Kept for the next call only if this one reads to its end.
        self._open = None
        if at[0] != view or start < at[1]:
            reader, at = self._begin(view), (view, 0)
        for _ in range(start - at[1]):
            next(reader)
        for first in range(start, stop, size):
            rows = [next(reader) for _ in range(min(size, stop - first))]
            yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        self._open = reader, (view, stop)

    def _begin(self, view: int):
        samples = self.singles
        if self.views is not None:
            samples = self.views.only(samples, view, self.image, self.key)
        return samples.as_numpy_iterator()


def _inputs(x, *others):
    return x


def _scan(batches, key: str, selection: Selection) -> tuple[np.ndarray, str]:
    """Return all ids of a dataset of inputs, and a digest of ids and inputs."""
    if int(batches.cardinality()) == -1:
        raise ValueError(
            "The data are infinite, so they can't be cached. Pass the dataset without "
            "repeat()."
        )
    digest, ids = hashlib.sha256(), []
    for batch in batches.as_numpy_iterator():
        _check_inputs(batch, selection, batch[key])
        ids.append(batch[key])
        fingerprints.add_arrays(digest, (batch[name] for name in sorted(batch)))
    ids = np.concatenate(ids or [np.zeros(0, "int64")])
    return ids, digest.hexdigest()


def _check_inputs(batch: dict, selection: Selection, ids: np.ndarray) -> None:
    """Check that the parts of a batch that the teacher gets are finite numbers."""
    names = list(batch) if selection is None else keys_of(selection)
    for name in names:
        values = np.asarray(batch.get(name, 0))
        check_kinds([values])
        if values.dtype.kind != "f":
            continue
        for start in range(0, len(values), 4096):
            part = values[start : start + 4096]
            finite = np.isfinite(part.reshape(len(part), -1)).all(axis=1)
            if not finite.all():
                found = ids[start : start + 4096][~finite]
                raise ValueError(
                    f"The teacher's inputs '{name}' are not finite, for samples such as "
                    f"the ids {found[:5].tolist()}. Repair these samples or leave them "
                    "out."
                )


def check_spec_of_ids(spec, key: str) -> None:
    """Check that a batch's ids or views are integers, `(B,)`.

    Args:
        spec: a `tf.TensorSpec`.
        key: of the ids in the inputs.

    Raises:
        ValueError: they are not.
    """
    dtype, shape = getattr(spec, "dtype", None), getattr(spec, "shape", None)
    if not getattr(dtype, "is_integer", False) or shape.rank not in (1, None):
        raise ValueError(
            f"'{key}' must be integers (B,), one for each sample of a batch; got {spec}. "
            "Number the samples by integers from 0, and pass batches."
        )


def _check_ids(ids: np.ndarray, count: int) -> None:
    """Check that there are samples, and that their ids are unique integers from 0."""
    ids = np.asarray(ids)
    if ids.shape != (count,) or ids.dtype.kind not in "iu":
        raise ValueError(
            f"Sample ids must be one integer for each of the {count} samples, ({count},); "
            f"got {ids.dtype} {ids.shape}. Number the samples from 0."
        )
    if not len(ids):
        raise ValueError(
            "There are no samples to cache. Check the filter, the split or the path that "
            "they come from."
        )
    outside = (ids < 0) | (ids > np.iinfo("int64").max)
    if outside.any():
        raise ValueError(
            f"Sample ids must be 0 to 2^63 - 1; got {ids[outside][:5].tolist()}. Number "
            "the samples from 0."
        )
    if (np.diff(ids) > 0).all():
        return
    unique, counts = np.unique(ids, return_counts=True)
    repeated = unique[counts > 1]
    if len(repeated):
        raise ValueError(
            f"A cache is keyed by sample ids, but {len(repeated)} of them occur more than "
            f"once, such as {repeated[:5].tolist()}. Number the samples again."
        )


def source(
    samples, views: Views | None, sample_ids: str, selection: Selection
) -> ArraySource | StreamSource:
    """Return a source of samples or of a `tf.data.Dataset`.

    Raises:
        TypeError: `samples` has another type.
    """
    if isinstance(samples, Samples):
        return ArraySource(samples, views, sample_ids, selection)
    if hasattr(samples, "element_spec"):
        return StreamSource(samples, views, sample_ids, selection)
    raise TypeError(
        "A cache is built from kd.data.Samples, as kd.data.Samples(images, labels), or "
        f"from a tf.data.Dataset of batches; got {type(samples).__name__}."
    )
