"""The similarity of the classes to the teacher, independent of the sample."""

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_above
from keras_distill.targets.target import ABSENT, Target, one_hot_labels


@keras.saving.register_keras_serializable(package="keras_distill")
class ClassSimilarity(Target):
    r"""One fixed distribution per class, from the weights of the teacher's last layer.

    .. math::

        p_j = \mathrm{softmax}_j \left(
            \mathrm{sign}(c_{yj}) \, |c_{yj}|^a / T_{\mathrm{sim}} \right),
            \quad c_{yj} = \cos(w_y, w_j)

    for the label y. This isolates one effect of distillation: a prior on the geometry
    of the student's last layer. The temperature of the divergence has no influence.

    Args:
        class_vectors: one vector per class, `(K, D)`, such as the transposed kernel of
            the teacher's last dense layer.
        temperature: T_sim > 0. Default 0.3.
        power: a > 0; below 1 spreads the similarities. Default 0.5.

    Raises:
        ValueError: the vectors are no matrix, or temperature or power is not above 0.

    Example:
        >>> kernel = teacher.get_layer("logits").kernel.numpy()
        >>> target = kd.targets.ClassSimilarity(kernel.T, temperature=0.3)

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation (KD-sim).
    """

    needs = ("labels",)
    needs_one_class = True

    def __init__(self, class_vectors, *, temperature: float = 0.3, power: float = 0.5):
        self.class_vectors = np.asarray(class_vectors, "float32")
        if self.class_vectors.ndim != 2:
            raise ValueError(
                "class_vectors is one vector per class, (K, D), as teacher.get_layer("
                f"'logits').kernel.numpy().T; got shape {self.class_vectors.shape}."
            )
        check_above(0, temperature=temperature, power=power)
        self.temperature = temperature
        self.power = power
        norms = np.linalg.norm(self.class_vectors, axis=-1, keepdims=True)
        self._unit_vectors = self.class_vectors / np.where(norms > 0, norms, 1.0)

    def call(self, teacher, temperature, labels):
        vectors = ops.cast(self._unit_vectors, teacher.dtype)
        of_label = ops.matmul(one_hot_labels(labels, teacher), vectors)
        cosine = ops.matmul(of_label, ops.transpose(vectors))
        powers = ops.sign(cosine) * ops.power(ops.abs(cosine), self.power)
        powers = ops.where(teacher > ABSENT, powers, ABSENT)
        return ops.log_softmax(powers / self.temperature, axis=-1)
