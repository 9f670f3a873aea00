"""Vision transformers, and those with a distillation token."""

from collections.abc import Sequence

import keras
from keras import layers

from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.models.tokens import HeadsMean, LearnedTokens, OneToken


def vit(
    input_shape: Sequence[int],
    classes: int,
    *,
    patch: int = 4,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
    dropout: float = 0.0,
    name: str = "vit",
) -> keras.Model:
    """Create a vision transformer that classifies by a class token.

    Layers: `patches`, `flat_patches`, `tokens` (the class token and those of the patches,
    row by row, with positions), in block `i`, normalized before each part,
    `block<i>_norm1`, `block<i>_attention`, `block<i>_add`, `block<i>_norm2`,
    `block<i>_mlp1`, `block<i>_mlp2` and the last addition `block<i>`; then `norm`,
    `class_token` and `logits`.

    Args:
        input_shape: shape of one image, `(H, W, C)`.
        classes: number of logits.
        patch: side of a patch in pixels, which divides H and W. Default 4.
        width: number of channels of a token, a multiple of `heads`. Default 192.
        depth: number of blocks. Default 12.
        heads: number of attention heads. Default 3; with the defaults it is DeiT-Ti but
            for the patches, which have 16 pixels there.
        dropout: rate behind attention and MLP. Default 0.
        name: model name.

    Returns:
        A functional `keras.Model` from images to logits `(B, classes)`.

    Raises:
        ValueError: `patch` does not divide the image, or `heads` the width.

    Example:
        >>> student = kd.models.vit((32, 32, 3), 10, width=96, depth=6)

    Source:
        Dosovitskiy et al. 2021, An image is worth 16x16 words.
    """
    check_integers(1, classes=classes)
    inputs, x = _encoded(input_shape, 1, patch, width, depth, heads, dropout)
    x = OneToken(0, name="class_token")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)


def deit(
    input_shape: Sequence[int],
    classes: int,
    *,
    patch: int = 4,
    width: int = 192,
    depth: int = 12,
    heads: int = 3,
    dropout: float = 0.0,
    name: str = "deit",
) -> keras.Model:
    r"""Create a vision transformer with a distillation token, which learns from a teacher.

    It is `vit` with a second token beside the class token, and a head on each. The class
    head learns the labels, the distillation head the class that the teacher predicts:

    .. math::

        \frac{1}{2} \mathrm{CE}(\mathrm{softmax}(a), y)
            + \frac{1}{2} \mathrm{CE}(\mathrm{softmax}(b), \arg\max z_t)

    with the logits a and b of the two heads. The output, `logits`, is that of the class
    head in training, so that the compiled loss and metrics are of it; in `predict`,
    `evaluate` and exported it is `log((softmax(a) + softmax(b)) / 2)`, the prediction
    of both. Behind `norm`, the layers are `class_token`, `distillation_token`,
    `class_head`, `distillation_head` and `logits`.

    Args:
        input_shape, classes, patch, width, depth, heads, dropout: as in `vit`.
        name: model name.

    Returns:
        A functional `keras.Model` from images to logits `(B, classes)`.

    Raises:
        ValueError: `patch` does not divide the image, or `heads` the width.

    Example:
        >>> student = kd.models.deit((8, 8, 1), 10, width=48, depth=2)
        >>> hard = kd.losses.SoftTarget(1.0, target=kd.targets.HardLabel())
        >>> term = kd.Term(hard, student="distillation_head", weight=0.5)
        >>> distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.5)

    Source:
        Touvron et al. 2021, Training data-efficient image transformers & distillation
        through attention (DeiT). The source's code predicts by the mean of the logits in
        place of the softmax's.
    """
    check_integers(1, classes=classes)
    inputs, x = _encoded(input_shape, 2, patch, width, depth, heads, dropout)
    both = []
    for index, of in enumerate(("class", "distillation")):
        token = OneToken(index, name=f"{of}_token")(x)
        both.append(layers.Dense(classes, name=f"{of}_head")(token))
    return keras.Model(inputs, HeadsMean(name="logits")(both), name=name)


def _encoded(input_shape, tokens, patch, width, depth, heads, dropout) -> tuple:
    """Return the inputs, and the normalized tokens behind the last block."""
    check_integers(1, patch=patch, width=width, depth=depth, heads=heads)
    check_in(0, dropout=dropout)
    if any(size % patch for size in input_shape[:2]):
        raise ValueError(
            f"patch must divide the height and width of the image; got a patch of {patch} "
            f"for images {tuple(input_shape)}."
        )
    if width % heads:
        raise ValueError(
            f"width must be a multiple of heads; got a width of {width} for {heads} heads."
        )
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(width, patch, patch, name="patches")(inputs)
    x = layers.Reshape((-1, width), name="flat_patches")(x)
    x = LearnedTokens(tokens, name="tokens")(x)
    for i in range(1, depth + 1):
        x = _block(x, width, heads, dropout, f"block{i}")
    return inputs, _normalization(x, "norm")


def _block(x, width, heads, dropout, prefix):
    shortcut, x = x, _normalization(x, f"{prefix}_norm1")
    attention = layers.MultiHeadAttention(
        heads, width // heads, name=f"{prefix}_attention"
    )
    x = _dropout(attention(x, x), dropout, f"{prefix}_dropout1")
    shortcut = x = layers.Add(name=f"{prefix}_add")([shortcut, x])
    x = _normalization(x, f"{prefix}_norm2")
    x = layers.Dense(4 * width, "gelu", name=f"{prefix}_mlp1")(x)
    x = layers.Dense(width, name=f"{prefix}_mlp2")(x)
    x = _dropout(x, dropout, f"{prefix}_dropout2")
    return layers.Add(name=prefix)([shortcut, x])


def _normalization(x, name):
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def _dropout(x, rate, name):
    return layers.Dropout(rate, name=name)(x) if rate else x
