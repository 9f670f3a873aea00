"""FitNets' convolutional regressor."""

from __future__ import annotations

import keras
from keras import layers

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_distill")
class ValidConvolution(layers.Layer):
    """FitNets' convolutional regressor: from a larger map to a smaller, wider one.

    A convolution without padding whose kernel is as large as the difference in size
    asks for, `k = H_s - H_t + 1` by `W_s - W_t + 1`, and gives the teacher's channels.
    It has fewer weights than a dense regressor and keeps places in place.

    Args:
        target_shape: the teacher's `(B, H, W, C)`. Default: filled in by the term.
        activation: of the result. Default: none.

    Raises:
        ValueError: the student's map is smaller than the teacher's.

    Example:
        >>> kd.Term(kd.losses.Hint(), "stack2", "stack3",
        ...         adapter=kd.adapters.ValidConvolution())

    Source:
        Romero et al. 2015, FitNets: hints for thin deep nets.
    """

    def __init__(self, target_shape: Shape | None = None, *, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape) if target_shape else None
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Shape):
        """Make the convolution from both shapes."""
        if self.target_shape is None:
            raise ValueError(
                "ValidConvolution needs target_shape, the teacher's shape."
            )
        (rows, columns), (target_rows, target_columns) = (
            shape[1:3] for shape in (input_shape, self.target_shape)
        )
        if rows < target_rows or columns < target_columns:
            raise ValueError(
                f"ValidConvolution shrinks a map; the student's {input_shape} is "
                f"smaller than the teacher's {self.target_shape}. Tap an earlier "
                "layer of the student, or use adapter='auto'."
            )
        kernel = (rows - target_rows + 1, columns - target_columns + 1)
        self.convolution = layers.Conv2D(
            self.target_shape[-1], kernel, dtype=self.dtype_policy, name="convolution"
        )
        self.convolution.build(input_shape)

    def call(self, inputs):
        """Regress `(B, H_s, W_s, C_s)` to `(B, H_t, W_t, C_t)`."""
        return self.activation(self.convolution(inputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the teacher's shape."""
        return (input_shape[0], *self.target_shape[1:])

    def get_config(self) -> dict:
        """Give the arguments."""
        activation = keras.activations.serialize(self.activation)
        config = {"target_shape": self.target_shape, "activation": activation}
        return {**super().get_config(), **config}
