"""Data that a cache is made of, from a start to a stop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from keras_distill import data
from keras_distill.data import Samples
from keras_distill.data.views import Views
from keras_distill.teachers.cache import fingerprints


class ArraySource:
    """Samples in memory.

    Args:
        samples: the data.
        views: of each sample, or None for the samples themselves.
        sample_ids: key of the ids.
    """

    def __init__(self, samples: Samples, views: Views | None, sample_ids: str):
        if sample_ids != "sample_id":
            raise ValueError(
                "Samples keep their ids as 'sample_id'; got the key "
                f"{sample_ids!r}. Leave sample_ids out, or give a tf.data.Dataset."
            )
        _are_ids(samples.ids)
        self.samples, self.views = samples, views
        self.count = len(samples)
        self.most = int(samples.ids.max())
        self.fingerprint = fingerprints.of_samples(samples)

    def read(self, view: int, start: int, stop: int, size: int) -> Iterator[dict]:
        """Give the inputs of samples, as NumPy arrays, `size` at a time."""
        part = self.samples[start:stop]
        if self.views is None:
            for place in range(0, len(part), size):
                batch = part[place : place + size]
                yield {"image": batch.images, "sample_id": batch.ids}
            return
        singles = data.batches(part, 1, sample_ids=True).unbatch()
        batches = self.views.only(singles, view).batch(size)
        yield from (x for x, _ in batches.as_numpy_iterator())


class StreamSource:
    """A `tf.data.Dataset` of batches of known length, read from start to end.

    Args:
        dataset: gives dicts with sample ids, or tuples that begin with one, each time
            in the same order.
        views: of each sample, or None for the samples themselves.
        sample_ids: key of the ids.
        image: key of what the views are of.
    """

    def __init__(self, dataset, views: Views | None, sample_ids: str, image: str):
        spec = dataset.element_spec
        spec = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(spec, dict) or sample_ids not in spec:
            raise ValueError(
                f"A cache is keyed by sample ids: the data's inputs must be a dict with "
                f"'{sample_ids}'; got {spec}. Add one, as kd.data.batches(..., "
                "sample_ids=True) or dataset.enumerate() do, or name it in sample_ids."
            )
        self.singles = dataset.map(_inputs).unbatch()
        self.views, self.key, self.image = views, sample_ids, image
        ids, self.fingerprint = _looked_through(dataset.map(_inputs), sample_ids)
        _are_ids(ids)
        self.count, self.most = len(ids), int(ids.max())
        self._left = None

    def read(self, view: int, start: int, stop: int, size: int) -> Iterator[dict]:
        """Give the inputs of samples, as NumPy arrays, `size` at a time."""
        reader, at = self._left or (None, (-1, 0))
        # Put back when all of it was given: what was left half way is not gone on with.
        self._left = None
        if at[0] != view or start < at[1]:
            reader, at = self._begin(view), (view, 0)
        for _ in range(start - at[1]):
            next(reader)
        for place in range(start, stop, size):
            rows = [next(reader) for _ in range(min(size, stop - place))]
            yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        self._left = reader, (view, stop)

    def _begin(self, view: int):
        shown = self.singles
        if self.views is not None:
            shown = self.views.only(shown, view, self.image, self.key)
        return shown.as_numpy_iterator()


def _inputs(x, *others):
    return x


def _looked_through(inputs, key: str) -> tuple[np.ndarray, str]:
    """Give all ids of a dataset of inputs, and a digest of ids and inputs."""
    if int(inputs.cardinality()) == -1:
        raise ValueError(
            "The data have no end, so a cache of them would have none. Give the dataset "
            "without repeat()."
        )
    digest, ids = hashlib.sha256(), [np.zeros(0, "int64")]
    for batch in inputs.as_numpy_iterator():
        ids.append(batch[key])
        fingerprints.add_arrays(digest, (batch[name] for name in sorted(batch)))
    return np.concatenate(ids), digest.hexdigest()


def _are_ids(ids: np.ndarray) -> None:
    """Check that there are samples, and that no two have one id."""
    if not len(ids):
        raise ValueError(
            "There are no samples to make a cache of. Check the filter, the split or "
            "the path that they come from."
        )
    if (np.diff(ids) > 0).all():
        return
    found, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"A cache is keyed by sample ids, and {int((counts > 1).sum())} of them are "
            f"there more than once, as {found[counts > 1][:5].tolist()}. Number the "
            "samples anew."
        )


def source(
    given, views: Views | None, sample_ids: str, image: str
) -> ArraySource | StreamSource:
    """Take samples or a `tf.data.Dataset`.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(given, Samples):
        return ArraySource(given, views, sample_ids)
    if hasattr(given, "element_spec"):
        return StreamSource(given, views, sample_ids, image)
    raise TypeError(
        "A cache is made of kd.data.Samples, as kd.data.Samples(images, labels), or of a "
        f"tf.data.Dataset of batches; got {type(given).__name__}."
    )
