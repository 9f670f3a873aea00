"""Taps: the one place that knows layer paths, call numbers, inputs and outputs.

A tap names a tensor inside a model, which `forward` records while the model runs.
"""

from keras_distill._backend.keras_layers import mask_of, sublayers
from keras_distill.taps.layer_paths import find_layer, layer_paths
from keras_distill.taps.outlines import layers_up_to, norms_of, outline, shapes_of
from keras_distill.taps.passes import forward, up_to
from keras_distill.taps.tap import LOGITS, Tap, as_taps

__all__ = [
    "LOGITS",
    "Tap",
    "as_taps",
    "find_layer",
    "forward",
    "layer_paths",
    "layers_up_to",
    "mask_of",
    "norms_of",
    "outline",
    "shapes_of",
    "sublayers",
    "up_to",
]
