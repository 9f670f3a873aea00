"""Joining cached outputs with their samples, in a `tf.data` pipeline or as arrays."""

import keras
import numpy as np

from keras_distill._backend.weak_calls import weakly
from keras_distill.data.selection import Selection, select
from keras_distill.teachers.cache import rows, sources
from keras_distill.teachers.cache.cache_checks import check_kinds
from keras_distill.teachers.cache.in_memory import LIMIT, InMemoryRows
from keras_distill.teachers.cache.reading import Reader

KNOWLEDGE, VIEW = "knowledge", "view"


class Joiner:
    """Looks up a batch's rows, and checks that its inputs are those of the teacher.

    Args:
        reader: of the cache.
        inputs: the teacher's part of the batch's inputs.
        key: of the sample ids.
    """

    def __init__(self, reader: Reader, inputs: Selection, key: str):
        self.reader, self.inputs, self.key = reader, inputs, key
        self.views, self.parts = reader.contents.views, reader.contents.parts
        self.exact = reader.contents.exact

    def join(self, dataset):
        """Add `"knowledge"` to the inputs of each batch, after a check of the first."""
        import tensorflow as tf

        spec = dataset.element_spec
        self._check_spec(spec[0] if isinstance(spec, tuple) else spec)
        first = next(dataset.as_numpy_iterator(), None)
        if first is not None:
            self._read(*self._query(first[0] if isinstance(first, tuple) else first))
        cache = InMemoryRows(self.reader) if self._fits() else None
        parts = [part for named in self.parts.values() for part in named.values()]
        # As `rows.unpack` returns them.
        types = ["int32" if d.startswith("uint") else d for d, _ in parts]
        shapes = [shape for _, shape in parts]

        read_rows = weakly(self, Joiner._read)

        def look_up(x, *others):
            query = self._query(x)
            read = lambda: tf.numpy_function(read_rows, query, types)  # noqa: E731
            if cache is None or not self._is_static(query[2:]):
                arrays = read()
            else:
                arrays, matches = cache.find(*query)
                # Reading raises the error that describes a mismatch.
                arrays = tf.cond(matches, lambda: arrays, read)
            for array, shape in zip(arrays, shapes, strict=True):
                array.set_shape((query[0].shape[0], *shape))
            x = self._with_knowledge(x, arrays)
            return (x, *others) if others else x

        mapped = dataset.map(look_up, num_parallel_calls=tf.data.AUTOTUNE)
        # All datasets made of it, and their iterators, refer to it.
        mapped.joiner = self
        return mapped.prefetch(tf.data.AUTOTUNE)

    def join_batch(self, batch):
        """Add `"knowledge"` to the inputs of a batch of NumPy arrays."""
        x, *others = batch if isinstance(batch, tuple) else (batch,)
        self._check_keys(x)
        x = keras.tree.map_structure(keras.ops.convert_to_numpy, x)
        x = self._with_knowledge(x, self._read(*self._query(x)))
        return (x, *others) if isinstance(batch, tuple) else x

    def _with_knowledge(self, x: dict, arrays) -> dict:
        remaining = iter(arrays)
        knowledge = {
            tap: {name: next(remaining) for name in named}
            for tap, named in self.parts.items()
        }
        return {**x, KNOWLEDGE: knowledge}

    def _fits(self) -> bool:
        count = self.reader.index.count * self.views
        return count * self.reader.row.itemsize <= LIMIT

    def _query(self, x: dict) -> list:
        """Return ids, views and the teacher's inputs."""
        views = x[VIEW] if self.views > 1 else np.int64(0)
        return [x[self.key], views, *keras.tree.flatten(select(x, self.inputs))]

    def _read(self, ids, views, *inputs) -> list[np.ndarray]:
        stored = self.reader.read(ids, views)
        marks = rows.marks(inputs, self.exact)
        rows.check_marks(marks, ids)
        changed = rows.changed(marks, stored)
        if changed.any():
            raise ValueError(
                f"{int(changed.sum())} of {len(ids)} samples, such as the ids "
                f"{ids[changed][:5].tolist()}, differ from the teacher's inputs: they are "
                "augmented at random, scaled differently or have changed. Augment with "
                "kd.data.Views, passed to the cache too, and scale as when it was built."
            )
        named = rows.unpack(stored)
        return [named[tap][name] for tap, parts in self.parts.items() for name in parts]

    def _check_keys(self, spec) -> list[str]:
        """Return the keys of ids and views, after a check that a batch has them."""
        required = [self.key] + [VIEW] * (self.views > 1)
        found = spec if isinstance(spec, dict) else ()
        if missing := [key for key in required if key not in found]:
            raise ValueError(
                f"A cache looks samples up by {' and '.join(map(repr, required))} in a "
                f"dict of inputs; {missing} is not in {_outline(spec)}. kd.data.batches(..., "
                "sample_ids=True) adds the ids, augment=kd.data.Views(...) the view."
            )
        return required

    def _check_spec(self, spec) -> None:
        for key in self._check_keys(spec):
            sources.check_spec_of_ids(spec[key], key)
        check_kinds(keras.tree.flatten(select(spec, self.inputs)))

    def _is_static(self, inputs) -> bool:
        """Whether graphs can compare the inputs: static sizes, integers where exact."""
        return _has_static_shapes(inputs) and all(
            x.dtype.is_integer or x.dtype.is_bool
            for x, exact in zip(inputs, self.exact, strict=False)
            if exact
        )


def _outline(spec):
    """Return the specs of a batch for an error, and of arrays their keys alone."""
    if isinstance(spec, dict) and all(isinstance(x, np.ndarray) for x in spec.values()):
        return list(spec)
    return type(spec).__name__ if hasattr(spec, "__array__") else spec


def _has_static_shapes(inputs) -> bool:
    """Return True if all axes of the inputs but the batch axis have static sizes."""
    return all(x.shape.rank is not None and None not in x.shape[1:] for x in inputs)
