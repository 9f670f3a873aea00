"""Wide residual networks."""

from collections.abc import Sequence

import keras
from keras import layers


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
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 6n + 4 (10, 16, 22, ...); got {depth}.")
    l2 = keras.regularizers.L2(weight_decay) if weight_decay else None
    inputs = keras.Input(input_shape)
    x = _conv(inputs, 16, 3, 1, l2, "stem")
    blocks = (depth - 4) // 6
    for stack in (1, 2, 3):
        filters = 16 * widen * 2 ** (stack - 1)
        for block in range(1, blocks + 1):
            prefix = f"stack{stack}_block{block}"
            stride = 2 if stack > 1 and block == 1 else 1
            end = f"stack{stack}" if block == blocks else f"{prefix}_add"
            x = _block(x, filters, stride, l2, prefix, end)
    x = _norm_relu(x, "")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name or f"wrn{depth}_{widen}")


def _conv(x, filters, kernel, stride, regularizer, name):
    return layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=regularizer,
        name=name,
    )(x)


def _norm_relu(x, prefix):
    x = layers.BatchNormalization(name=f"{prefix}norm")(x)
    return layers.ReLU(name=f"{prefix}relu")(x)


def _block(x, filters, stride, regularizer, prefix, end):
    shortcut = x
    activated = _norm_relu(x, f"{prefix}_a_")
    x = _conv(activated, filters, 3, stride, regularizer, f"{prefix}_a_conv")
    x = _norm_relu(x, f"{prefix}_b_")
    x = _conv(x, filters, 3, 1, regularizer, f"{prefix}_b_conv")
    if stride != 1 or shortcut.shape[-1] != filters:
        name = f"{prefix}_shortcut"
        shortcut = _conv(activated, filters, 1, stride, regularizer, name)
    return layers.Add(name=end)([x, shortcut])
