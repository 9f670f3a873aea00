"""Reconstruction of inputs from a teacher and its metadata."""

import keras
import numpy as np
from keras import ops

from keras_distill import taps as tapping
from keras_distill._backend import gradients
from keras_distill._backend.keras_layers import Untracked
from keras_distill._backend.number_checks import (
    check_above,
    check_finite,
    check_integers,
)
from keras_distill.schemes.data_free.goals import Goal, errors
from keras_distill.schemes.data_free.metadata import Metadata


class _Canvas(keras.Model):
    """A batch of trainable inputs, and the teacher whose activations they must match."""

    def __init__(self, teacher, shape, wanted: list[Goal], bounds):
        super().__init__(name="canvas")
        self.teacher = Untracked(teacher)
        self.taps = tapping.as_taps(
            dict.fromkeys(path for goal in wanted for path in goal.layers)
        )
        self.bounds = bounds
        self.drawn = self.add_weight(shape=shape, initializer="zeros", name="inputs")
        self.layers_of_goals = [goal.layers for goal in wanted]
        self.bases = [goal.basis for goal in wanted]
        self.values, self.shares = (
            [
                self.add_weight(shape=x.shape, trainable=False, name=f"{name}{i}")
                for i, x in enumerate(arrays)
            ]
            for name, arrays in (
                ("value", [goal.values for goal in wanted]),
                ("share", [goal.weights for goal in wanted]),
            )
        )
        self.built = True

    def begin(self, inputs, wanted: list[Goal]) -> None:
        """Set the initial inputs and the goals, and reset the optimizer."""
        low, high = self.bounds
        unit = np.clip((inputs - low) / (high - low), 1e-3, 1 - 1e-3)
        self.drawn.assign(np.log(unit / (1.0 - unit)))
        for values, shares, goal in zip(self.values, self.shares, wanted, strict=True):
            values.assign(goal.values)
            shares.assign(goal.weights)
        rate = self.optimizer.learning_rate
        for variable in self.optimizer.variables:
            if variable is not rate:
                variable.assign(np.zeros(variable.shape))

    def current_inputs(self):
        """Return the inputs, within the bounds."""
        low, high = self.bounds
        return low + (high - low) * ops.sigmoid(self.drawn)

    def call(self, unused):
        """Add the loss: the relative mean squared errors, summed over the layers."""
        outputs = tapping.up_to(self.teacher.value, self.current_inputs(), self.taps)
        found = {tap.path: x for tap, x in outputs.items()}
        goals = zip(
            self.layers_of_goals, self.bases, self.values, self.shares, strict=True
        )
        parts = [
            errors([found[path] for path in layers], *numbers)
            for layers, *numbers in goals
        ]
        self.add_loss(ops.sum(sum(parts)))
        return unused


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
    r"""Reconstruct inputs on which a teacher has the recorded activations.

    The inputs begin as noise. Adam minimizes

    .. math::

        \sum_l \frac{\mathrm{mean} \, (f_l(x) - a_l)^2}{\mathrm{mean} \, a_l^2}

    with a_l drawn from the metadata; a sigmoid keeps the inputs within the bounds. Of
    spectra, f_l(x) are the Fourier coefficients of a layer's or a pair's activations, and
    the means are over those that were kept; the others may be anything. No data are
    needed.

    Args:
        teacher: the recorded teacher.
        metadata: its `kd.Metadata`.
        count: number of inputs.
        steps: number of gradient steps for each batch. Default 300.
        learning_rate: learning rate of Adam. Default 0.1.
        batch_size: number of inputs that are trained together. Default 500.
        bounds: lower and upper bound of the inputs' values. Default 0 to 1.
        start: mean of the initial noise, within the bounds. Default 0.15.
        seed: seed of the noise and of the draws. Default 0.
        verbose: 1 (default) for a progress bar, 0 for silent.

    Returns:
        Inputs `(count, ...)`, float32.

    Raises:
        ValueError: the metadata belong to another teacher, or `count` is below 1.

    Example:
        >>> metadata = kd.record_metadata(teacher, images, kind="all")
        >>> kd.reconstruct(teacher, metadata, 32, steps=5, verbose=0).shape
        (32, 8, 8, 1)

    Source:
        Lopes, Fenu, Starner 2017, Data-free knowledge distillation for deep neural
        networks.
    """
    check_integers(1, count=count, steps=steps, batch_size=batch_size)
    check_integers(0, seed=seed)
    check_above(0, learning_rate=learning_rate)
    check_finite(start=start)
    metadata.check_teacher(teacher)
    rng = np.random.default_rng(seed)
    views = metadata.views(teacher)
    # With few inputs, each view still gets a batch.
    batch_size = min(batch_size, -(-count // len(views)))
    shape = (batch_size, *metadata.settings["input_shape"])
    batches = -(-count // batch_size)
    bar = keras.utils.Progbar(batches, verbose=verbose, unit_name="batch")
    inputs, canvases = [], {}
    for batch in range(batches):
        view = batch % len(views)
        goals = metadata.goals(batch_size, view, rng)
        if view not in canvases:
            canvases[view] = _Canvas(views[view], shape, goals, bounds)
            canvases[view].compile(keras.optimizers.Adam(learning_rate))
        canvas = canvases[view]
        noise = rng.normal(start, 0.1 * (bounds[1] - bounds[0]), shape)
        canvas.begin(noise, goals)
        canvas.fit(np.zeros((steps, 1)), batch_size=1, verbose=0)
        gradients.forget_gradients(views[view])
        inputs.append(ops.convert_to_numpy(canvas.current_inputs()))
        bar.update(batch + 1)
    return np.concatenate(inputs)[:count]
