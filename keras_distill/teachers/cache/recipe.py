"""Which outputs of a teacher are cached, and in which form."""

import functools
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np
from keras import ops

from keras_distill.data.preparation import of_member
from keras_distill.data.selection import Selection, select
from keras_distill.data.views import Views
from keras_distill.taps import Tap
from keras_distill.taps.lengths import lengths_of
from keras_distill.taps.masks import masks_of
from keras_distill.taps.tracing import trace
from keras_distill.teachers.averaging_teacher import AveragingTeacher
from keras_distill.teachers.base_teacher import VALUES, BaseTeacher, check_keeps_state
from keras_distill.teachers.cache import cache_checks as checks
from keras_distill.teachers.cache import fingerprints, forms
from keras_distill.teachers.cache.building import compiled
from keras_distill.teachers.cache.contents import MASK, Contents


class Recipe:
    """How a batch becomes cached values; arguments as in `CachedTeacher`."""

    def __init__(
        self,
        teacher: BaseTeacher,
        taps: Sequence[Tap],
        *,
        top_k: int | None,
        temperature: float | None,
        dtype: str,
        views: Views | None,
        inputs: Selection,
        preprocessing: keras.Layer | None,
    ):
        predicts = getattr(teacher, "predicts", None)
        # A mean of values depends on no temperature.
        is_ensemble = isinstance(teacher, AveragingTeacher) and predicts != VALUES
        checks.check_taps(taps)
        checks.check_temperature(top_k, temperature, is_ensemble, dtype)
        checks.check_top_k(top_k, predicts)
        checks.check_views(views)
        checks.check_preprocessing(preprocessing)
        if preprocessing is None:
            checks.check_takes_tensors(teacher.models)
        self.teacher, self.taps, self.views = teacher, taps, views
        self.inputs, self.preprocessing = inputs, preprocessing
        self.lengths = None
        self.temperature = temperature if is_ensemble or top_k else None
        self.predicts = {"predicts": predicts} if predicts else {}
        dense = forms.Dense(dtype)
        top = dense if top_k is None else forms.TopK(top_k, float(temperature))
        self.forms = {str(tap): top if tap.is_output else dense for tap in taps}

    def fingerprints(self) -> dict:
        """Return the fingerprints of all that a cache is made of, except the data."""
        views = self.views and {"count": self.views.count, "seed": self.views.seed}
        layer = self.preprocessing and fingerprints.of_layer(self.preprocessing)
        parts = [*self.teacher.models, *([self.preprocessing] if layer else [])]
        return {
            "teacher": fingerprints.of_teacher(self.teacher),
            "connections": fingerprints.of_connections(parts),
            "taps": {tap: form.get_config() for tap, form in self.forms.items()},
            "temperature": self.temperature or "any",
            "preprocessing": f"{self.inputs!r}, {layer}",
            "views": views or "none",
            **self.predicts,
        }

    def contents(self, source, made_of: dict, shard_rows: int) -> Contents:
        """Return what a cache will contain, as found by a pass of one sample."""
        sample = select(next(source.read(0, 0, 1, 1)), self.inputs)
        leaves = keras.tree.flatten(sample)
        exact = tuple(np.asarray(x).dtype.kind in "iub" for x in leaves)
        inputs = self._prepared(keras.tree.map_structure(ops.convert_to_tensor, sample))
        checks.check_logits(self.teacher, inputs, self.taps)
        self._adapt(sample)
        with keras.StatelessScope() as scope:
            knowledge = self.teacher(inputs, self.taps)
        check_keeps_state(self.teacher, scope)
        found = {tap: tuple(x[1:]) for tap, x in self.lengths.sizes.items()}
        checks.check_shapes(found)
        masks = masks_of(knowledge, self.lengths, of_member(inputs, 0))
        return Contents(
            made_of=made_of,
            shapes=found,
            samples=source.count,
            views=self.views.count if self.views else 1,
            shard_rows=min(shard_rows, source.count),
            wide_ids=source.largest_id >= 2**32,
            exact=exact,
            masks={str(tap): tuple(mask.shape[1:]) for tap, mask in masks.items()},
        )

    def runner(self, batch_size: int, masked: Iterable[str]) -> Callable:
        """Return a function from a batch to teacher inputs, values and divergences.

        A smaller batch is padded to `batch_size`, so that the teacher is compiled once.

        Args:
            batch_size: samples that the teacher is run on at once.
            masked: the taps whose masks are stored.
        """
        run = compiled(functools.partial(self._values, masked=frozenset(masked)))

        def run_batch(batch: dict) -> tuple:
            inputs = select(batch, self.inputs)
            self._adapt(inputs)
            count = len(keras.tree.flatten(inputs)[0])
            indices = np.minimum(np.arange(batch_size), count - 1)
            padded = run(keras.tree.map_structure(lambda x: x[indices], inputs))
            return inputs, *keras.tree.map_structure(lambda x: x[:count], padded)

        return run_batch

    def _adapt(self, inputs) -> None:
        """Find what a function returns and which inputs are padding masks, once."""
        if self.lengths is not None:
            return
        first = keras.tree.map_structure(lambda x: ops.convert_to_tensor(x[:1]), inputs)
        first = self._prepared(first)
        if self.teacher.adapts_to_data:
            self.teacher.adapt(first)
        self.lengths = lengths_of(
            lambda specs: self.teacher.shapes(specs, self.taps),
            trace(lambda x: x, first),
            next(iter(self.teacher.models), None),
        )

    def _prepared(self, inputs):
        layer = self.preprocessing
        return inputs if layer is None else layer(inputs, training=False)

    def _values(self, inputs, masked: frozenset) -> tuple:
        """Return the encoded values of each tap, and divergences of predictions, `(B,)`."""
        prepared = self._prepared(inputs)
        knowledge = self.teacher(prepared, self.taps)
        masks = masks_of(knowledge, self.lengths, of_member(prepared, 0))
        values, distances = {}, ops.zeros(ops.shape(keras.tree.flatten(inputs)[0])[0])
        temperature = self.temperature or 1.0
        for tap in self.taps:
            form, tensor = self.forms[str(tap)], knowledge[tap]
            if tap.is_output:
                tensor = self.teacher.logits(tensor, temperature)
            values[str(tap)] = form.encode(tensor)
            if tap.is_output:
                decoded = form.decode(values[str(tap)], tensor.shape[1:])
                distances += _divergence(tensor, decoded, temperature, masks.get(tap))
            if str(tap) in masked:
                values[str(tap)][MASK] = ops.cast(masks[tap], "bool")
        return values, distances


def _divergence(logits, decoded, temperature: float, mask):
    """Return the KL divergence of decoded from full softened predictions, `(B,)`.

    Of several predictions of a sample it is the mean, without those that are masked.
    """
    log_p, log_q = (
        ops.log_softmax(ops.cast(x, "float32") / temperature, axis=-1)
        for x in (logits, decoded)
    )
    p = ops.exp(log_p)
    # A class of p = 0, whose logarithm is -inf, adds nothing.
    values = ops.sum(p * ops.where(p > 0, log_p - log_q, 0.0), axis=-1)
    valid = ops.ones_like(values)
    if mask is not None:
        while len(mask.shape) < len(values.shape):
            mask = ops.expand_dims(mask, -1)
        valid *= ops.cast(mask, valid.dtype)
    axes = tuple(range(1, len(values.shape)))
    count = ops.maximum(ops.sum(valid, axis=axes), 1.0)
    return ops.sum(values * valid, axis=axes) / count
