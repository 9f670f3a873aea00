"""A generalist and its specialists, as one model."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_above, check_integers
from keras_distill.schemes.specialists.class_groups import check_groups


@keras.saving.register_keras_serializable(package="keras_distill")
class SpecialistEnsemble(keras.Model):
    r"""A generalist and its specialists, combined into one model for prediction.

    Of each sample, the active specialists A are those whose group contains one of the
    `nearest` top classes of the generalist. The model finds the distribution q over all
    classes that minimizes

    .. math::

        \mathrm{KL}(p_g \,\|\, q) + \sum_{m \in A} \mathrm{KL}(p_m \,\|\, q)

    where q is summed over the classes of specialist m's dustbin. With `q = softmax(z)`,
    gradient descent on z begins at the generalist's logits.

    Args:
        generalist: model over all classes.
        specialists: as returned by `kd.fit_specialists`.
        groups: the classes of each specialist.
        nearest: number of top classes that activate specialists. Default 1.
        steps: number of gradient steps. Default 100.
        rate: learning rate of the steps. Default 0.5.
        name: model name.

    Raises:
        ValueError: invalid groups or output sizes, or `nearest` or `steps` below 1.

    Example:
        >>> model = kd.SpecialistEnsemble(generalist, specialists, groups)
        >>> model.predict(images)  # logits

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network
        (section 5.5).
    """

    def __init__(
        self,
        generalist: keras.Model,
        specialists: Sequence[keras.Model],
        groups: Sequence[Sequence[int]],
        *,
        nearest: int = 1,
        steps: int = 100,
        rate: float = 0.5,
        name: str | None = None,
    ):
        check_groups(generalist, groups)
        sizes = [model.output_shape[-1] for model in specialists]
        if sizes != (expected := [len(group) + 1 for group in groups]):
            raise ValueError(
                "Each specialist must return the logits of its group and of a dustbin: "
                f"expected outputs of {expected}, got outputs of {sizes}."
            )
        check_integers(1, nearest=nearest, steps=steps)
        check_above(0, rate=rate)
        super().__init__(name=name)
        self.generalist, self.specialists = generalist, list(specialists)
        self.groups = [list(group) for group in groups]
        self.nearest, self.steps, self.rate = nearest, steps, rate
        self.built = True

    def call(self, inputs, training=None):
        """Return logits `(B, K)`."""
        z = ops.cast(self.generalist(inputs, training=training), "float32")
        classes = z.shape[-1]
        targets, weights = [ops.softmax(z, axis=-1)], [ops.ones_like(z[:, :1])]
        merges = [np.eye(classes, dtype="float32")]
        top = ops.top_k(z, self.nearest)[1]
        for model, group in zip(self.specialists, self.groups, strict=True):
            logits = ops.cast(model(inputs, training=training), "float32")
            targets.append(ops.softmax(logits, axis=-1))
            merges.append(_merge_matrix(group, classes))
            in_group = np.isin(np.arange(classes), group).astype("float32")
            weights.append(ops.max(ops.take(in_group, top), axis=-1, keepdims=True))
        total = sum(weights)

        def step(_, z):
            q = ops.softmax(z, axis=-1)
            gradient = total * q
            for p, weight, merge in zip(targets, weights, merges, strict=True):
                # The classes of a dustbin share its probability in proportion to q.
                ratio = p / ops.maximum(ops.matmul(q, merge), 1e-30)
                gradient -= weight * q * ops.matmul(ratio, merge.T)
            return z - self.rate * gradient

        return ops.fori_loop(0, self.steps, step, z)

    def compute_output_shape(self, input_shape):
        return self.generalist.compute_output_shape(input_shape)

    def get_config(self) -> dict:
        serialize = keras.saving.serialize_keras_object
        return {
            "generalist": serialize(self.generalist),
            "specialists": [serialize(model) for model in self.specialists],
            "groups": self.groups,
            "nearest": self.nearest,
            "steps": self.steps,
            "rate": self.rate,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "SpecialistEnsemble":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))


def _merge_matrix(group: list[int], classes: int) -> np.ndarray:
    """Return the 0/1 matrix `(K, k + 1)` from classes to the outputs of a specialist."""
    matrix = np.zeros((classes, len(group) + 1), "float32")
    matrix[group, np.arange(len(group))] = 1.0
    matrix[:, -1] = 1.0 - matrix.sum(1)
    return matrix
