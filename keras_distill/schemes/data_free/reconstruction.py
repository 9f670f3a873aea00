"""Inputs reconstructed from a teacher and its metadata."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_distill import taps as tapping
from keras_distill._backend import gradients
from keras_distill.schemes.data_free.metadata import Metadata


class _Canvas(keras.Model):
    """A batch of inputs that are trained, and the net that says how far they are.

    Args:
        net: a teacher.
        shape: of the batch.
        targets: activations by layer.
        bounds: of the inputs.
    """

    def __init__(self, net, shape, targets: dict, bounds):
        super().__init__(name="canvas")
        taps = tapping.as_taps(targets)
        # In functions, so that the teacher's variables are not trained.
        self.run = lambda x: tapping.up_to(net, x, taps)
        self.bounds = bounds
        self.drawn = self.add_weight(shape=shape, initializer="zeros", name="inputs")
        self.targets = [
            self.add_weight(shape=value.shape, trainable=False, name=f"target{i}")
            for i, value in enumerate(targets.values())
        ]
        self.built = True

    def begin(self, inputs, targets: dict) -> None:
        """Take other inputs and targets."""
        low, high = self.bounds
        share = np.clip((inputs - low) / (high - low), 1e-3, 1 - 1e-3)
        self.drawn.assign(np.log(share / (1.0 - share)))
        for variable, value in zip(self.targets, targets.values(), strict=True):
            variable.assign(value)
        rate = self.optimizer.learning_rate
        for variable in self.optimizer.variables:
            if variable is not rate:
                variable.assign(np.zeros(variable.shape))

    def inputs_now(self):
        """Give the inputs, within the bounds."""
        low, high = self.bounds
        return low + (high - low) * ops.sigmoid(self.drawn)

    def call(self, unused):
        """Give the loss: each layer's mean squared error, summed."""
        found = self.run(self.inputs_now()).values()
        gaps = [
            ops.mean(ops.square(ops.reshape(x, target.shape) - target), axis=-1)
            / (ops.mean(ops.square(target)) + 1e-6)
            for x, target in zip(found, self.targets, strict=True)
        ]
        self.add_loss(ops.sum(sum(gaps)))
        return unused

    def compute_loss(self, *args, **kwargs):
        return sum(self.losses)


def reconstruct(
    teacher: keras.Model,
    metadata: Metadata,
    count: int,
    *,
    steps: int = 300,
    learning_rate: float = 0.1,
    batch_size: int = 500,
    bounds: tuple[float, float] = (0.0, 1.0),
    start: float = 0.15,
    seed: int = 0,
    verbose: int = 1,
) -> np.ndarray:
    """Make inputs on which a teacher gives the activations that were recorded.

    They start as noise and go down the gradient of

        sum_l mean (f_l(x) - a_l)^2 / mean a_l^2

    with a_l drawn from the metadata; Adam, within bounds by a logistic function. No
    data are needed: run it where there are none.

    Args:
        teacher: the one that was recorded.
        metadata: `kd.Metadata`.
        count: how many inputs.
        steps: of gradient descent for each batch. Default 300.
        learning_rate: of Adam. Default 0.1.
        batch_size: inputs at a time. Default 500.
        bounds: of each value of an input. Default 0 to 1.
        start: mean of the noise at the start, within the bounds. Default 0.15.
        seed: of noise and draws. Default 0.
        verbose: 1 (default) for a bar, 0 for none.

    Returns:
        Inputs `(count, ...)`, float32.

    Raises:
        ValueError: metadata of another teacher, or a count below 1.

    Example:
        >>> images = kd.reconstruct(teacher, kd.Metadata.load("metadata.npz"), 1000)
        >>> distiller.fit(images, epochs=20)

    Source:
        Lopes, Fenu, Starner 2017, Data-free knowledge distillation for deep neural
        networks.
    """
    metadata.check(teacher)
    if count < 1:
        raise ValueError(f"count is 1 or more; got {count}.")
    rng = np.random.default_rng(seed)
    views = metadata.views(teacher)
    # So that each view has its share.
    batch_size = min(batch_size, -(-count // len(views)))
    shape = (batch_size, *metadata.settings["input_shape"])
    batches = -(-count // batch_size)
    bar = keras.utils.Progbar(batches, verbose=verbose, unit_name="batch")
    made, canvases = [], {}
    for batch in range(batches):
        place = batch % len(views)
        targets = metadata.targets(batch_size, place, rng)
        if place not in canvases:
            canvases[place] = _Canvas(views[place], shape, targets, bounds)
            canvases[place].compile(keras.optimizers.Adam(learning_rate))
        canvas = canvases[place]
        noise = rng.normal(start, 0.1 * (bounds[1] - bounds[0]), shape)
        canvas.begin(noise, targets)
        canvas.fit(np.zeros((steps, 1)), batch_size=1, verbose=0)
        gradients.forget(views[place])
        made.append(ops.convert_to_numpy(canvas.inputs_now()))
        bar.update(batch + 1)
    return np.concatenate(made)[:count]
