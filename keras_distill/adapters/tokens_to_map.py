"""Tokens of image patches, arranged as a map."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters.adapter import Adapter


@keras.saving.register_keras_serializable(package="keras_distill")
class TokensToMap(Adapter):
    """Arrange the tokens of image patches as a map; drop the class token before them.

    Patches are in rows, from the top left, as vision transformers embed them.

    Args:
        size: height and width of the map, in patches.

    Raises:
        ValueError: when built, there are fewer tokens than patches.

    Example:
        >>> kd.adapters.TokensToMap((14, 14))(tokens)  # (B, 197, D) to (B, 14, 14, D)
    """

    def __init__(self, size: tuple[int, int], **kwargs):
        super().__init__(**kwargs)
        check_integers(1, **{f"size[{i}]": n for i, n in enumerate(size)})
        self.size = tuple(size)

    def build(self, input_shape: tuple) -> None:
        """Check the number of tokens, `(B, L, D)`."""
        height, width = self.size
        if len(input_shape) != 3 or (input_shape[1] or height * width) < height * width:
            raise ValueError(
                f"A map of {height} by {width} needs tokens (B, L, D) with L of "
                f"{height * width} or more; got {tuple(input_shape)}."
            )
        self.built = True

    def call(self, inputs):
        """Return `(B, H, W, D)` of `(B, L, D)`, the last H W tokens."""
        height, width = self.size
        patches = inputs[:, -height * width :]
        return ops.reshape(patches, (-1, height, width, inputs.shape[-1]))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], *self.size, input_shape[-1])
