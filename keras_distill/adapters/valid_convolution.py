"""The convolutional regressor of FitNets."""

import keras
from keras import layers

from keras_distill.adapters.adapter import LAST, Adapter
from keras_distill.adapters.match import Shape


@keras.saving.register_keras_serializable(package="keras_distill")
class ValidConvolution(Adapter):
    """Regress a map to a smaller one with the teacher's channels, as FitNets do.

    A convolution without padding, whose kernel of `H_s - H_t + 1` by `W_s - W_t + 1`
    reduces the student's map to the teacher's size. It has fewer weights than a dense
    regressor and preserves the spatial layout.

    Args:
        target_shape: the teacher's `(B, H, W, C)`. Default: set by the term.
        activation: activation of the output. Default: none.

    Raises:
        ValueError: the student's map is smaller than the teacher's; raised by `build`.

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
            self.target_shape[-1],
            kernel,
            data_format=LAST,
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.convolution.build(input_shape)

    def call(self, inputs):
        """Regress `(B, H_s, W_s, C_s)` to `(B, H_t, W_t, C_t)`."""
        return self.activation(self.convolution(inputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *self.target_shape[1:])

    def get_config(self) -> dict:
        activation = keras.activations.serialize(self.activation)
        config = {"target_shape": self.target_shape, "activation": activation}
        return {**super().get_config(), **config}
