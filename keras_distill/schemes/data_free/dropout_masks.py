"""Fixed dropout masks on the layers of a model."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_distill.teachers.freezing.folding import graph_of


class _Mask(keras.Layer):
    """Multiplies each unit by a fixed number."""

    def __init__(self, values, **kwargs):
        super().__init__(**kwargs)
        self.values = values

    def call(self, inputs):
        return inputs * ops.cast(self.values, inputs.dtype)


def with_masks(
    model: keras.Model, layers: Sequence[str], keep: float, seed: int
) -> keras.Model:
    """Copy a functional or Sequential model, with a fixed dropout mask after some layers.

    Each unit is kept with the probability `keep`; kept units are divided by it.
    """
    rng = np.random.default_rng(seed)

    def call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        if layer.name not in layers:
            return outputs
        kept = rng.random(outputs.shape[1:]) < keep
        mask = _Mask((kept / keep).astype("float32"), name=f"{layer.name}_mask")
        return mask(outputs)

    graph = graph_of(model)
    copy = keras.models.clone_model(graph, call_function=call)
    copy.set_weights(model.get_weights())
    return copy
