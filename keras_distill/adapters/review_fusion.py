"""A student's stages, each fused with the deeper ones."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="keras_distill")
class ReviewFusion(layers.Layer):
    """From the deepest stage up, each map fused with what came from below.

    A teacher's early stage may be learnt by a student's later ones. Each map is brought
    to `width` channels; the fused one from below is enlarged to its size, and two
    attention maps weigh both; a 3x3 convolution gives the teacher's channels:

        x_i = norm(conv1x1(F_i));   a, b = sigmoid(conv1x1([x_i, up(u_{i+1})]))
        u_i = a * x_i + b * up(u_{i+1});   out_i = norm(conv3x3(u_i))

    Args:
        target_shapes: the teacher's `(B, H, W, C)`, from early to deep.
        width: channels of the fusion. Default 64.

    Example:
        >>> fusion = kd.adapters.ReviewFusion([(None, 16, 16, 32), (None, 8, 8, 64)])
        >>> early, deep = fusion([student_early, student_deep])

    Source:
        Chen et al. 2021, Distilling knowledge via knowledge review.
    """

    def __init__(self, target_shapes: Sequence[tuple], *, width: int = 64, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.target_shapes = [tuple(shape) for shape in target_shapes]
        self.width = width

    def build(self, input_shape: Sequence[tuple]):
        """Make the convolutions of each stage."""
        shapes = zip(input_shape, self.target_shapes, strict=True)
        self.stages = [
            _Stage(
                self.width, target[-1], place + 1 < len(input_shape), name=f"s{place}"
            )
            for place, (_, target) in enumerate(shapes)
        ]
        for stage, shape in zip(self.stages, input_shape, strict=True):
            stage.build(shape)

    def call(self, inputs, training=None):
        """Give the fused maps, in the teacher's shapes, from early to deep."""
        made, below = [], None
        for stage, x, target in zip(
            reversed(self.stages),
            reversed(inputs),
            reversed(self.target_shapes),
            strict=True,
        ):
            below, out = stage(x, below, size=target[1:3], training=training)
            made.append(out)
        return made[::-1]

    def compute_output_shape(self, input_shape: Sequence[tuple]) -> list[tuple]:
        """Give the teacher's shapes."""
        return [
            (own[0], *target[1:])
            for own, target in zip(input_shape, self.target_shapes, strict=True)
        ]

    def get_config(self) -> dict:
        """Give the arguments."""
        config = {"target_shapes": self.target_shapes, "width": self.width}
        return {**super().get_config(), **config}


class _Stage(layers.Layer):
    """The fusion of one stage."""

    def __init__(self, width, channels, fuses, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.width, self.channels, self.fuses = width, channels, fuses

    def build(self, input_shape):
        def conv(filters, size, name, **kwargs):
            return layers.Conv2D(filters, size, padding="same", name=name, **kwargs)

        self.narrow = conv(self.width, 1, "narrow", use_bias=False)
        self.narrow_norm = layers.BatchNormalization(name="narrow_norm")
        self.out = conv(self.channels, 3, "out", use_bias=False)
        self.out_norm = layers.BatchNormalization(name="out_norm")
        fused = (*input_shape[:-1], self.width)
        self.narrow.build(input_shape)
        self.narrow_norm.build(fused)
        self.out.build(fused)
        self.out_norm.build((*input_shape[:-1], self.channels))
        if self.fuses:
            self.attention = conv(2, 1, "attention", activation="sigmoid")
            self.attention.build((*input_shape[:-1], 2 * self.width))

    def call(self, inputs, below=None, size=None, training=None):
        x = self.narrow_norm(self.narrow(inputs), training=training)
        if self.fuses:
            below = ops.image.resize(below, x.shape[1:3], interpolation="nearest")
            both = self.attention(ops.concatenate([x, below], axis=-1))
            x = both[..., :1] * x + both[..., 1:] * below
        if tuple(x.shape[1:3]) != tuple(size):
            x = ops.image.resize(x, size, interpolation="nearest")
        return x, self.out_norm(self.out(x), training=training)
