"""Wide residual networks."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.models.parts import classifier, conv, normalization, residual_stages


def wide_resnet(
    input_shape: Sequence[int],
    classes: int,
    *,
    depth: int = 16,
    widen: int = 2,
    weight_decay: float = 0.0,
    name: str | None = None,
) -> keras.Model:
    """Create WRN-`depth`-`widen`, with stages of 16, 32 and 64 times `widen` channels.

    Layers: `stem`, pre-activation blocks `stack<i>_block<j>_...`, the last addition of
    stage `i`, `stack<i>` (before the next normalization, so its values may be
    negative); then `norm`, `relu`, `pool` and `logits`.

    Args:
        input_shape: shape of one image, `(H, W, C)`.
        classes: number of logits.
        depth: 10, 16, 22, ... (6n + 4). Default 16.
        widen: widening factor. Default 2.
        weight_decay: L2 factor of the kernels. Default 0.
        name: model name. Default `wrn<depth>_<widen>`.

    Returns:
        A functional `keras.Model` from images to logits `(B, classes)`.

    Raises:
        ValueError: `depth` is not 6n + 4.

    Example:
        >>> student = kd.models.wide_resnet((32, 32, 3), 10, depth=16, widen=1)

    Source:
        Zagoruyko, Komodakis 2016, Wide residual networks.
    """
    check_integers(1, classes=classes, depth=depth, widen=widen)
    check_in(0, weight_decay=weight_decay)
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 6n + 4 (10, 16, 22, ...); got {depth}.")
    inputs = keras.Input(input_shape)
    x = conv(inputs, 16, 3, 1, weight_decay, "stem")
    widths = 16 * widen, 32 * widen, 64 * widen
    x = residual_stages(x, _block, (depth - 4) // 6, widths, weight_decay, "add")
    x = _norm_relu(x, "")
    return classifier(inputs, x, classes, name or f"wrn{depth}_{widen}")


def _norm_relu(x, prefix):
    x = normalization(x, f"{prefix}norm")
    return layers.ReLU(name=f"{prefix}relu")(x)


def _block(x, filters, stride, decay, prefix, end):
    shortcut = x
    activated = _norm_relu(x, f"{prefix}_a_")
    x = conv(activated, filters, 3, stride, decay, f"{prefix}_a_conv")
    x = _norm_relu(x, f"{prefix}_b_")
    x = conv(x, filters, 3, 1, decay, f"{prefix}_b_conv")
    if stride != 1 or shortcut.shape[-1] != filters:
        shortcut = conv(activated, filters, 1, stride, decay, f"{prefix}_shortcut")
    return layers.Add(name=end)([x, shortcut])
