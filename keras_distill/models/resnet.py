"""Residual networks for small images."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.models.parts import classifier, conv, normalization, residual_stages


def resnet(
    input_shape: Sequence[int],
    classes: int,
    *,
    depth: int = 20,
    width: int = 16,
    weight_decay: float = 0.0,
    name: str | None = None,
) -> keras.Model:
    """Create the CIFAR ResNet of He et al., with three stages of `(depth - 2) / 6` blocks.

    Layers: `stem_...`, blocks `stack<i>_block<j>_...`, the last ReLU of stage `i`,
    after the addition, `stack<i>`; then `pool` and `logits`. Stages 2 and 3 halve the
    resolution and double the channels.

    Args:
        input_shape: shape of one image, `(H, W, C)`.
        classes: number of logits.
        depth: 8, 14, 20, ... (6n + 2). Default 20.
        width: number of channels of the first stage. Default 16.
        weight_decay: L2 factor of the kernels. Default 0.
        name: model name. Default `resnet<depth>`.

    Returns:
        A functional `keras.Model` from images to logits `(B, classes)`.

    Raises:
        ValueError: `depth` is not 6n + 2.

    Example:
        >>> teacher = kd.models.resnet((32, 32, 3), 10, depth=20)

    Source:
        He, Zhang, Ren, Sun 2016, Deep residual learning for image recognition.
    """
    check_integers(1, classes=classes, depth=depth, width=width)
    check_in(0, weight_decay=weight_decay)
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth must be 6n + 2 (8, 14, 20, ...); got {depth}.")
    inputs = keras.Input(input_shape)
    x = _conv_norm(inputs, width, 3, 1, weight_decay, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    widths = width, 2 * width, 4 * width
    x = residual_stages(x, _block, (depth - 2) // 6, widths, weight_decay, "out")
    return classifier(inputs, x, classes, name or f"resnet{depth}")


def _conv_norm(x, filters, kernel, stride, decay, prefix):
    x = conv(x, filters, kernel, stride, decay, f"{prefix}_conv")
    return normalization(x, f"{prefix}_norm")


def _block(x, filters, stride, decay, prefix, end):
    shortcut = x
    x = _conv_norm(x, filters, 3, stride, decay, f"{prefix}_a")
    x = layers.ReLU(name=f"{prefix}_relu")(x)
    x = _conv_norm(x, filters, 3, 1, decay, f"{prefix}_b")
    if stride != 1 or shortcut.shape[-1] != filters:
        shortcut = _conv_norm(shortcut, filters, 1, stride, decay, f"{prefix}_shortcut")
    x = layers.Add(name=f"{prefix}_add")([x, shortcut])
    return layers.ReLU(name=end)(x)
