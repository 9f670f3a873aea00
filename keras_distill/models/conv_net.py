"""A plain convolutional network."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.models.parts import classifier, conv, normalization


def conv_net(
    input_shape: Sequence[int],
    classes: int,
    *,
    filters: Sequence[int] = (16, 32, 64),
    convs_per_stack: int = 1,
    weight_decay: float = 0.0,
    name: str = "conv_net",
) -> keras.Model:
    """Create a network of stages of 3x3 convolutions with max-pooling in between.

    Layers: in stage `i`, `stack<i>_conv<j>` and `stack<i>_norm<j>`, and its last
    activation `stack<i>`; then `pool` and `logits`. Pooling halves the resolution.

    Args:
        input_shape: shape of one image, `(H, W, C)`.
        classes: number of logits.
        filters: number of channels of each stage. Default 16, 32 and 64.
        convs_per_stack: convolutions in each stage; a thin, deep student as in
            FitNets has few filters and many convolutions. Default 1.
        weight_decay: L2 factor of the kernels. Default 0.
        name: model name.

    Returns:
        A functional `keras.Model` from images to logits `(B, classes)`.

    Example:
        >>> student = kd.models.conv_net((32, 32, 3), 10, filters=(8, 16, 32))
    """
    check_integers(1, classes=classes, convs_per_stack=convs_per_stack)
    check_in(0, weight_decay=weight_decay)
    x = inputs = keras.Input(input_shape)
    for stack, channels in enumerate(filters, start=1):
        if stack > 1:
            x = layers.MaxPooling2D(2, padding="same", name=f"stack{stack}_pool")(x)
        for j in range(1, convs_per_stack + 1):
            x = conv(x, channels, 3, 1, weight_decay, f"stack{stack}_conv{j}")
            x = normalization(x, f"stack{stack}_norm{j}")
            last = j == convs_per_stack
            end = f"stack{stack}" if last else f"stack{stack}_relu{j}"
            x = layers.ReLU(name=end)(x)
    return classifier(inputs, x, classes, name)
