"""What is asked of a teacher, and in which form it is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_distill.data.selection import Selection, select
from keras_distill.data.views import Views
from keras_distill.distillers import shapes
from keras_distill.taps import Tap
from keras_distill.teachers.cache import cache_checks as checks
from keras_distill.teachers.cache import fingerprints, forms
from keras_distill.teachers.cache.building import compiled
from keras_distill.teachers.cache.contents import Contents
from keras_distill.teachers.ensemble import EnsembleTeacher
from keras_distill.teachers.teacher import Teacher


class Recipe:
    """How a batch becomes what is kept of it; arguments as in `CachedTeacher`."""

    def __init__(
        self,
        teacher: Teacher,
        taps: Sequence[Tap],
        *,
        top_k: int | None,
        temperature: float | None,
        dtype: str,
        views: Views | None,
        inputs: Selection,
        preprocessing: keras.Layer | None,
    ):
        several = isinstance(teacher, EnsembleTeacher)
        checks.can_be_kept(taps)
        checks.has_temperature(top_k, temperature, several)
        checks.are_views(views)
        self.teacher, self.taps, self.views = teacher, taps, views
        self.inputs, self.preprocessing = inputs, preprocessing
        self.temperature = temperature if several or top_k else None
        dense = forms.Dense(dtype)
        top = dense if top_k is None else forms.TopK(top_k, float(temperature))
        self.forms = {str(tap): top if tap.is_logits else dense for tap in taps}

    def fingerprints(self) -> dict:
        """Give what a cache is made of, but for the data."""
        views = self.views and {"count": self.views.count, "seed": self.views.seed}
        layer = self.preprocessing and fingerprints.of_layer(self.preprocessing)
        return {
            "teacher": fingerprints.of_teacher(self.teacher),
            "taps": {tap: form.get_config() for tap, form in self.forms.items()},
            "temperature": self.temperature or "any",
            "preprocessing": f"{self.inputs!r}, {layer}",
            "views": views or "none",
        }

    def contents(self, source, made_of: dict, shard_rows: int) -> Contents:
        """Find out what a cache will hold, from one sample."""
        sample = select(next(source.read(0, 0, 1, 1)), self.inputs)
        inputs = keras.tree.map_structure(ops.convert_to_tensor, sample)
        inputs = self._prepared(inputs)
        if any(tap.is_logits for tap in self.taps):
            checks.gives_logits(self.teacher, inputs)
        found = shapes.of_teacher(self.teacher, inputs, self.taps)
        found = {tap: tuple(shape[1:]) for tap, shape in found.items()}
        checks.are_fixed(found)
        return Contents(
            made_of=made_of,
            shapes=found,
            samples=source.count,
            views=self.views.count if self.views else 1,
            shard_rows=min(shard_rows, source.count),
            wide_ids=source.most >= 2**32,
        )

    def runner(self, contents: Contents, batch_size: int) -> Callable:
        """Give the function from a batch to what was shown, what is kept, and distances.

        Args:
            contents: of the cache.
            batch_size: of all batches but the last, which is filled up to it, so that
                the teacher is compiled once.
        """
        run = compiled(lambda inputs: self._kept(inputs, contents))

        def take(batch: dict) -> tuple:
            seen = select(batch, self.inputs)
            count = len(keras.tree.flatten(seen)[0])
            places = np.minimum(np.arange(batch_size), count - 1)
            found = run(keras.tree.map_structure(lambda x: x[places], seen))
            return seen, *keras.tree.map_structure(lambda x: x[:count], found)

        return take

    def _prepared(self, inputs):
        return inputs if self.preprocessing is None else self.preprocessing(inputs)

    def _kept(self, inputs, contents: Contents) -> tuple:
        """Give what is kept of each tap, and the divergences of predictions, `(B,)`."""
        knowledge = self.teacher(self._prepared(inputs), self.taps)
        kept, distances = {}, ops.zeros(ops.shape(keras.tree.flatten(inputs)[0])[0])
        for tap in self.taps:
            form, shape = self.forms[str(tap)], contents.shapes[str(tap)]
            tensor = knowledge[tap]
            if tap.is_logits:
                tensor = self.teacher.logits(tensor, self.temperature or 1.0)
            kept[str(tap)] = form.keep(tensor)
            if tap.is_logits:
                again = form.restore(kept[str(tap)], shape)
                distances += _divergence(tensor, again, self.temperature or 1.0)
        return kept, distances


def _divergence(logits, again, temperature: float):
    """Give the divergence of one softened prediction from another, `(B,)`."""
    log_p, log_q = (
        ops.log_softmax(ops.cast(x, "float32") / temperature, axis=-1)
        for x in (logits, again)
    )
    values = ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)
    return ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)), axis=1)
