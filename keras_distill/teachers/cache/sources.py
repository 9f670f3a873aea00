"""Data that a cache is built from, readable from a start to a stop index."""

import hashlib
from collections.abc import Iterator

import numpy as np

from keras_distill import data
from keras_distill.data import Samples
from keras_distill.data.views import Views
from keras_distill.teachers.cache import fingerprints


class ArraySource:
    """Samples in memory, or views of them."""

    def __init__(self, samples: Samples, views: Views | None, sample_ids: str):
        if sample_ids != "sample_id":
            raise ValueError(
                "The ids of kd.data.Samples have the key 'sample_id'; got "
                f"{sample_ids!r}. Leave sample_ids out, or pass a tf.data.Dataset."
            )
        _check_ids(samples.ids)
        self.samples, self.views = samples, views
        self.count = len(samples)
        self.largest_id = int(samples.ids.max())
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
        image: key of the images that the views augment.
    """

    def __init__(self, dataset, views: Views | None, sample_ids: str, image: str):
        spec = dataset.element_spec
        spec = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(spec, dict) or sample_ids not in spec:
            raise ValueError(
                f"A cache is keyed by sample ids: the data's inputs must be a dict with "
                f"'{sample_ids}'; got {spec}. Add it, as kd.data.batches(..., "
                "sample_ids=True) or dataset.enumerate() do, or pass its key as sample_ids."
            )
        inputs = dataset.map(_inputs)
        self.singles = inputs.unbatch()
        self.views, self.key, self.image = views, sample_ids, image
        ids, self.fingerprint = _scan(inputs, sample_ids)
        _check_ids(ids)
        self.count, self.largest_id = len(ids), int(ids.max())
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


def _scan(inputs, key: str) -> tuple[np.ndarray, str]:
    """Return all ids of a dataset of inputs, and a digest of ids and inputs."""
    if int(inputs.cardinality()) == -1:
        raise ValueError(
            "The data are infinite, so they can't be cached. Pass the dataset without "
            "repeat()."
        )
    digest, ids = hashlib.sha256(), [np.zeros(0, "int64")]
    for batch in inputs.as_numpy_iterator():
        ids.append(batch[key])
        fingerprints.add_arrays(digest, (batch[name] for name in sorted(batch)))
    return np.concatenate(ids), digest.hexdigest()


def _check_ids(ids: np.ndarray) -> None:
    """Check that there are samples, and that their ids are unique."""
    if not len(ids):
        raise ValueError(
            "There are no samples to cache. Check the filter, the split or the path that "
            "they come from."
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
    samples, views: Views | None, sample_ids: str, image: str
) -> ArraySource | StreamSource:
    """Return a source of samples or of a `tf.data.Dataset`.

    Raises:
        TypeError: `samples` has another type.
    """
    if isinstance(samples, Samples):
        return ArraySource(samples, views, sample_ids)
    if hasattr(samples, "element_spec"):
        return StreamSource(samples, views, sample_ids, image)
    raise TypeError(
        "A cache is built from kd.data.Samples, as kd.data.Samples(images, labels), or "
        f"from a tf.data.Dataset of batches; got {type(samples).__name__}."
    )
