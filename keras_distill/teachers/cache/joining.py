"""What a cache holds of each sample, put beside it in a `tf.data` pipeline."""

from __future__ import annotations

import keras
import numpy as np

from keras_distill.data.selection import Selection, select
from keras_distill.teachers.cache import rows
from keras_distill.teachers.cache.contents import Contents
from keras_distill.teachers.cache.reading import Reader
from keras_distill.teachers.cache.resident import LIMIT, Resident

KNOWLEDGE, VIEW = "knowledge", "view"


class Joining:
    """Finds a batch's rows, and checks that the batch is what the teacher was shown.

    Args:
        reader: of the cache.
        contents: of the cache.
        inputs: the teacher's part of the batch's inputs.
        sample_ids: key of the ids.
    """

    def __init__(
        self, reader: Reader, contents: Contents, inputs: Selection, sample_ids: str
    ):
        self.reader, self.contents = reader, contents
        self.inputs, self.key = inputs, sample_ids
        self.parts = {
            tap: form.parts(contents.shapes[tap])
            for tap, form in contents.forms.items()
        }

    def join(self, dataset):
        """Put `"knowledge"` into the inputs of each batch, after a look at the first."""
        import tensorflow as tf

        spec = dataset.element_spec
        self._has_keys(spec[0] if isinstance(spec, tuple) else spec)
        first = next(dataset.as_numpy_iterator(), None)
        if first is not None:
            self._find(*self._asked(first[0] if isinstance(first, tuple) else first))
        resident = Resident(self.reader, self.contents.views) if self._fits() else None
        shapes = [shape for named in self.parts.values() for _, shape in named.values()]
        types = [_type(d) for named in self.parts.values() for d, _ in named.values()]

        def look_up(x, *others):
            asked = self._asked(x)
            read = lambda: tf.numpy_function(self._find, asked, types)  # noqa: E731
            if resident is None or not _is_flat(asked[2:]):
                found = read()
            else:
                found, fine = resident.find(*asked)
                # Reading says what is wrong.
                found = tf.cond(fine, lambda: found, read)
            for array, shape in zip(found, shapes, strict=True):
                array.set_shape((asked[0].shape[0], *shape))
            named = {tap: list(parts) for tap, parts in self.parts.items()}
            found = iter(found)
            known = {
                tap: {n: next(found) for n in names} for tap, names in named.items()
            }
            x = {**x, KNOWLEDGE: known}
            return (x, *others) if others else x

        mapped = dataset.map(look_up, num_parallel_calls=tf.data.AUTOTUNE)
        return mapped.prefetch(tf.data.AUTOTUNE)

    def _fits(self) -> bool:
        count = self.reader.index.count * self.contents.views
        return count * self.reader.row.itemsize <= LIMIT

    def _asked(self, x: dict) -> list:
        """Give ids, views and what the teacher was shown."""
        views = x[VIEW] if self.contents.views > 1 else np.int64(0)
        return [x[self.key], views, *keras.tree.flatten(select(x, self.inputs))]

    def _find(self, ids, views, *shown) -> list[np.ndarray]:
        found = self.reader.read(ids, views)
        other = rows.changed(rows.sketch(shown), found[rows.SEEN])
        if other.any():
            raise ValueError(
                f"{int(other.sum())} of {len(ids)} samples, as those of the ids "
                f"{ids[other][:5].tolist()}, are not what the teacher was shown: they are "
                "augmented at random, scaled otherwise or have changed. Augment with "
                "kd.data.Views, which the cache must be given too, and scale as it was "
                "made."
            )
        known = rows.unpack(found)
        return [known[tap][name] for tap, parts in self.parts.items() for name in parts]

    def _has_keys(self, spec) -> None:
        wanted = [self.key] + [VIEW] * (self.contents.views > 1)
        missing = [
            key for key in wanted if not isinstance(spec, dict) or key not in spec
        ]
        if missing:
            raise ValueError(
                f"A cache finds samples by {' and '.join(map(repr, wanted))} in a dict of "
                f"inputs; {missing} is not in {spec}. kd.data.batches(..., "
                "sample_ids=True) puts the ids there, augment=kd.data.Views(...) the view."
            )


def _is_flat(shown) -> bool:
    """Tell whether the sizes of all inputs are known, but for the batch's."""
    return all(x.shape.rank is not None and None not in x.shape[1:] for x in shown)


def _type(dtype: str) -> str:
    return "int32" if dtype.startswith("uint") else dtype
