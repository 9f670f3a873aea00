"""A projection that keeps distances and angles."""

import keras
from keras import ops

from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters.adapter import Adapter


@keras.saving.register_keras_serializable(package="keras_distill")
class OrthogonalProjection(Adapter):
    """Project the last axis by a trained matrix with orthonormal rows, without a bias.

    From D features to C of D or more, W W^T = I: lengths and angles are those of the
    features. To fewer its columns are orthonormal. W is the orthogonal factor of a free
    matrix, by a QR decomposition whose diagonal is above 0, in each step.

    Args:
        channels: C, 1 or more.

    Raises:
        ValueError: `channels` is below 1; when built, the last axis is unknown.

    Example:
        >>> kd.adapters.OrthogonalProjection(64)(features)

    Source:
        Miles, Elezi, Deng 2024, VkD: improving knowledge distillation using orthogonal
        projections; the source has a matrix exponential in place of QR.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        check_integers(1, channels=channels)
        self.channels = channels

    def build(self, input_shape: tuple) -> None:
        """Create the free matrix, with more rows than columns."""
        if input_shape[-1] is None:
            raise ValueError(
                "OrthogonalProjection needs a known number of channels, the last axis; "
                f"got {tuple(input_shape)}."
            )
        self.widens = self.channels >= input_shape[-1]
        sizes = sorted((input_shape[-1], self.channels), reverse=True)
        self.free = self.add_weight(
            shape=tuple(sizes), initializer="orthogonal", name="free"
        )

    @property
    def matrix(self):
        """W, `(D, C)`."""
        factor, triangle = ops.qr(self.free)
        factor = factor * ops.where(ops.diagonal(triangle) < 0, -1.0, 1.0)
        return ops.transpose(factor) if self.widens else factor

    def call(self, inputs):
        """Return `(..., C)`."""
        return ops.matmul(inputs, self.matrix)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.channels)
