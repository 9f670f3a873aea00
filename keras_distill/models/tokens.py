"""Layers of the tokens that vision transformers add to those of the patches."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_distill")
class LearnedTokens(keras.Layer):
    """Learned tokens in front of those of the patches, and positions added to all.

    Args:
        count: number of learned tokens.
    """

    def __init__(self, count: int, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def build(self, input_shape: tuple) -> None:
        """Create the tokens `(count, D)` and the positions `(count + L, D)`."""
        _, length, width = input_shape
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        shapes = {"tokens": self.count, "positions": self.count + length}
        for name, rows in shapes.items():
            weight = self.add_weight((rows, width), initializer=normal, name=name)
            setattr(self, name, weight)

    def call(self, inputs):
        """Return `(B, count + L, D)` of `(B, L, D)`."""
        tokens = ops.cast(self.tokens, inputs.dtype)[None]
        tokens = ops.repeat(tokens, ops.shape(inputs)[0], axis=0)
        return ops.concatenate([tokens, inputs], axis=1) + self.positions

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, length, width = input_shape
        return batch, self.count + length, width

    def get_config(self) -> dict:
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable(package="keras_distill")
class OneToken(keras.Layer):
    """One token of a sequence.

    Args:
        index: of the token.
    """

    def __init__(self, index: int, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def call(self, inputs):
        """Return `(B, D)` of `(B, L, D)`."""
        return inputs[:, self.index]

    def get_config(self) -> dict:
        return {**super().get_config(), "index": self.index}


@keras.saving.register_keras_serializable(package="keras_distill")
class HeadsMean(keras.Layer):
    """The first head's logits in training, the prediction of both heads in inference.

    log((softmax(a) + softmax(b)) / 2), whose softmax is the mean of both.
    """

    def call(self, inputs, training=False):
        """Return `(B, K)` of a pair of logits `(B, K)`."""
        first, second = inputs
        if training:
            return first
        sides = (ops.log_softmax(logits, axis=-1) for logits in (first, second))
        return ops.logaddexp(*sides) - math.log(2.0)

    def compute_output_shape(self, input_shape: list) -> tuple:
        return tuple(input_shape[0])
