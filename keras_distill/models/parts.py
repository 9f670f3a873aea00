"""Parts that the convolutional networks share."""

import keras
from keras import layers


def conv(x, filters, kernel, stride, weight_decay, name):
    """Apply a convolution without bias, with He initialization."""
    return layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(weight_decay)
        if weight_decay
        else None,
        name=name,
    )(x)


def normalization(x, name):
    """Apply batch normalization whose moving statistics settle within 50 steps.

    Keras's momentum of 0.99 takes some 500, which small data do not have: a net is then
    much worse in inference form than in training form.
    """
    return layers.BatchNormalization(momentum=0.9, name=name)(x)


def residual_stages(x, block, blocks, widths, weight_decay, last):
    """Apply stages of residual blocks; each but the first halves the resolution."""
    for stack, filters in enumerate(widths, start=1):
        for j in range(1, blocks + 1):
            prefix = f"stack{stack}_block{j}"
            stride = 2 if stack > 1 and j == 1 else 1
            end = f"stack{stack}" if j == blocks else f"{prefix}_{last}"
            x = block(x, filters, stride, weight_decay, prefix, end)
    return x


def classifier(inputs, x, classes, name):
    """Return a model that pools features `x` of the inputs and ends in logits."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)
