"""Attention-based fusion of the student's stages, for knowledge review."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters.adapter import LAST, Adapter


@keras.saving.register_keras_serializable(package="keras_distill")
class ReviewFusion(Adapter):
    r"""Fuse each stage's map with the fused map of the next deeper stage.

    A teacher's early stage may be learned by a student's later ones. Each map is
    projected to `width` channels, the deeper fused map is resized to it, attention maps
    weight the two, and a 3x3 convolution maps their sum to the teacher's channels:

    .. math::

        x_i &= \mathrm{norm}(\mathrm{conv}_{1 \times 1}(F_i))

        a_i, b_i &= \mathrm{sigmoid} \left(
            \mathrm{conv}_{1 \times 1}([x_i, \mathrm{up}(u_{i+1})]) \right)

        u_i &= a_i x_i + b_i \, \mathrm{up}(u_{i+1})

        \mathrm{out}_i &= \mathrm{norm}(\mathrm{conv}_{3 \times 3}(u_i))

    The deepest map has none to fuse with: there u is x.

    Args:
        target_shapes: the teacher's `(B, H, W, C)` of each stage, shallowest first.
        width: number of channels of the fused maps. Default 64.

    Example:
        >>> fusion = kd.adapters.ReviewFusion([(None, 16, 16, 32), (None, 8, 8, 64)])
        >>> early, deep = fusion([student_early, student_deep])

    Source:
        Chen et al. 2021, Distilling knowledge via knowledge review.
    """

    def __init__(self, target_shapes: Sequence[tuple], *, width: int = 64, **kwargs):
        super().__init__(**kwargs)
        check_integers(1, width=width)
        self.target_shapes = [tuple(shape) for shape in target_shapes]
        self.width = width

    def build(self, input_shape: Sequence[tuple]):
        self.stages = []
        shapes = zip(input_shape, self.target_shapes, strict=True)
        for i, (shape, target) in enumerate(shapes):
            fuses = i + 1 < len(input_shape)
            stage = {"name": f"s{i}", "dtype": self.dtype_policy}
            self.stages.append(_Stage(self.width, target[-1], fuses, **stage))
            self.stages[i].build(shape)

    def call(self, inputs, training=None):
        """Return the fused maps, in the teacher's shapes, shallowest first."""
        outputs, deeper = [], None
        stages = zip(self.stages, inputs, self.target_shapes, strict=True)
        for stage, x, target in reversed(list(stages)):
            deeper, out = stage(x, deeper, size=target[1:3], training=training)
            outputs.append(out)
        return outputs[::-1]

    def compute_output_shape(self, input_shape: Sequence[tuple]) -> list[tuple]:
        return [
            (shape[0], *target[1:])
            for shape, target in zip(input_shape, self.target_shapes, strict=True)
        ]


class _Stage(Adapter):
    """The fusion of one stage."""

    def __init__(self, width, channels, fuses, **kwargs):
        super().__init__(**kwargs)
        self.width, self.channels, self.fuses = width, channels, fuses

    def build(self, input_shape):
        def conv(filters, size, name, **kwargs):
            kwargs |= {"padding": "same", "data_format": LAST}
            policy = self.dtype_policy
            return layers.Conv2D(filters, size, name=name, dtype=policy, **kwargs)

        def norm(name):
            return layers.BatchNormalization(name=name, dtype=self.dtype_policy)

        self.narrow = conv(self.width, 1, "narrow", use_bias=False)
        self.narrow_norm = norm("narrow_norm")
        self.out = conv(self.channels, 3, "out", use_bias=False)
        self.out_norm = norm("out_norm")
        fused = (*input_shape[:-1], self.width)
        self.narrow.build(input_shape)
        self.narrow_norm.build(fused)
        self.out.build(fused)
        self.out_norm.build((*input_shape[:-1], self.channels))
        if self.fuses:
            self.attention = conv(2, 1, "attention", activation="sigmoid")
            self.attention.build((*input_shape[:-1], 2 * self.width))

    def call(self, inputs, deeper=None, size=None, training=None):
        x = self.narrow_norm(self.narrow(inputs), training=training)
        if self.fuses:
            deeper = ops.image.resize(deeper, x.shape[1:3], "nearest", data_format=LAST)
            weights = self.attention(ops.concatenate([x, deeper], axis=-1))
            x = weights[..., :1] * x + weights[..., 1:] * deeper
        if tuple(x.shape[1:3]) != tuple(size):
            x = ops.image.resize(x, size, "nearest", data_format=LAST)
        return x, self.out_norm(self.out(x), training=training)
