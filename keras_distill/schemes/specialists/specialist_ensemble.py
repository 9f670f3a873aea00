"""A generalist and its specialists, as one model."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_distill.schemes.specialists.specialists import are_groups


@keras.saving.register_keras_serializable(package="keras_distill")
class SpecialistEnsemble(keras.Model):
    """A generalist and its specialists as one model that predicts.

    For each sample, of the specialists whose group holds one of the generalist's
    `nearest` classes, A, it finds the distribution q over all classes that minimises

        KL(p_g, q) + sum_{m in A} KL(p_m, q)

    where q adds up all classes of specialist m's dustbin. `q = softmax(z)`, and z goes
    down the gradient, which has a closed form, from the generalist's logits.

    Args:
        generalist: over all classes.
        specialists: as `kd.fit_specialists` gives them.
        groups: the classes of each.
        nearest: how many of the generalist's first classes call specialists. Default 1.
        steps: of gradient descent. Default 100.
        rate: of each step. Default 0.5.
        name: model name.

    Raises:
        ValueError: bad groups, other output sizes, or numbers below 1.

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
        are_groups(generalist, groups)
        sizes = [model.output_shape[-1] for model in specialists]
        if sizes != [len(group) + 1 for group in groups]:
            raise ValueError(
                "Each specialist gives the logits of its group and of a dustbin: groups "
                f"of {[len(group) for group in groups]}, but outputs of {sizes}."
            )
        if min(nearest, steps) < 1:
            raise ValueError(
                f"nearest and steps are 1 or more; got {nearest}, {steps}."
            )
        super().__init__(name=name)
        self.generalist, self.specialists = generalist, list(specialists)
        self.groups = [list(group) for group in groups]
        self.nearest, self.steps, self.rate = nearest, steps, rate
        self.built = True

    def call(self, inputs, training=None):
        """Give logits, `(B, K)`."""
        z = ops.cast(self.generalist(inputs, training=training), "float32")
        known = ops.softmax(z, axis=-1)
        wanted, weight = [known], [ops.ones_like(z[:, :1])]
        members = [np.eye(z.shape[-1], dtype="float32")]
        first = ops.top_k(z, self.nearest)[1]
        for model, group in zip(self.specialists, self.groups, strict=True):
            logits = ops.cast(model(inputs, training=training), "float32")
            wanted.append(ops.softmax(logits, axis=-1))
            members.append(_members(group, z.shape[-1]))
            mine = np.isin(np.arange(z.shape[-1]), group).astype("float32")
            weight.append(ops.max(ops.take(mine, first), axis=-1, keepdims=True))
        total = sum(weight)

        def step(_, z):
            q = ops.softmax(z, axis=-1)
            slope = total * q
            for p, w, of in zip(wanted, weight, members, strict=True):
                # Each class has its part of what its group should have.
                share = p / ops.maximum(ops.matmul(q, of), 1e-30)
                slope -= w * q * ops.matmul(share, of.T)
            return z - self.rate * slope

        return ops.fori_loop(0, self.steps, step, z)

    def compute_output_shape(self, input_shape):
        """Give the generalist's."""
        return self.generalist.compute_output_shape(input_shape)

    def get_config(self) -> dict:
        """Give the arguments."""
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
    def from_config(cls, config: dict, custom_objects=None) -> SpecialistEnsemble:
        """Make a model from its arguments."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))


def _members(group: list[int], classes: int) -> np.ndarray:
    """Give which classes each of a specialist's outputs stands for, `(K, k + 1)`."""
    found = np.zeros((classes, len(group) + 1), "float32")
    found[group, np.arange(len(group))] = 1.0
    found[:, -1] = 1.0 - found.sum(1)
    return found
