"""How much of each part of an image a layer may forget: entropies of its pixels."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_distill import taps
from keras_distill._backend import gradients
from keras_distill.analysis.predictions import in_batches

# Entropy of a normal distribution of deviation 1, in nats.
UNIT_ENTROPY = 0.5 * np.log(2.0 * np.pi * np.e)


@dataclasses.dataclass(frozen=True)
class PixelEntropies:
    """How much noise each part of each image bears, and what it does to the layer.

    Args:
        sigma: deviation of the noise, `(N, g, g)`, in units of the images.
        change: the mean squared change of the layer that it makes, relative to the
            variance of the layer over the images, `(N,)`; the bound, but for chance.

    Example:
        >>> kd.analysis.pixel_entropies(student, images, "stack2").change
    """

    sigma: np.ndarray
    change: np.ndarray

    @property
    def entropies(self) -> np.ndarray:
        """Give H = log sigma + log(2 pi e) / 2 of each part, `(N, g, g)`, in nats."""
        return np.log(self.sigma) + UNIT_ENTROPY


def pixel_entropies(
    model: keras.Model,
    images: np.ndarray,
    tap: str | taps.Tap,
    *,
    bound: float = 0.1,
    grid: int = 16,
    steps: int = 100,
    learning_rate: float = 0.1,
    draws: int = 2,
    batch_size: int = 64,
    seed: int = 0,
    verbose: int = 0,
) -> PixelEntropies:
    """Find how strong a noise each part of an image bears before a layer changes.

    Where the noise may be strong the layer has thrown the image away; where it must be
    weak the layer looks. Of noise x' ~ N(x, diag(sigma^2)), one sigma for each cell of
    a grid,

        maximise  sum_i log sigma_i   where   E |f(x') - f(x)|^2 <= bound * variance of f

    with the variance over all the images. Adam goes up the Lagrangian, whose optimum
    meets the bound where f is linear, and a last search for one factor meets it for the
    net as it is. All images of a batch are searched at once. No sigma is above the range
    of the images, the largest value less the smallest: what does not touch the layer at
    all would bear any noise.

    Args:
        model: of one input.
        images: `(N, H, W, C)`, two or more.
        tap: of any layer.
        bound: on the change, relative to the variance. Default 0.1.
        grid: g; cells a side, a divisor of height and width. Default 16.
        steps: of Adam. Default 100.
        learning_rate: of log sigma. Default 0.1.
        draws: pairs of opposite noises a step. Default 2.
        batch_size: images at a time. Default 64.
        seed: of the noise. Default 0.
        verbose: 1 for a bar; 0 (default) for none.

    Returns:
        `PixelEntropies`.

    Raises:
        ValueError: a grid that does not divide the images, a bound not above 0, a
            layer that says the same of all images, or noise whose change is not finite.

    Example:
        >>> found = kd.analysis.pixel_entropies(student, images[:64], "stack2")
        >>> found.entropies.shape
        (64, 16, 16)

    Source:
        Cheng et al. 2020, Explaining knowledge distillation by quantifying the
        knowledge.
    """
    height, width = images.shape[1:3]
    if height % grid or width % grid or not bound > 0:
        raise ValueError(
            f"grid divides height and width, and bound is above 0; got images of "
            f"{height} by {width}, grid={grid} and bound={bound}."
        )
    (tap,) = taps.as_taps(tap)
    scale = _variance(model, images, tap, batch_size)
    size = min(batch_size, len(images))
    shape, limit = (size, *images.shape[1:]), float(np.ptp(images))
    search = _Search(model, tap, shape, grid, draws, seed, limit)
    search.compile(keras.optimizers.Adam(learning_rate))
    bar = keras.utils.Progbar(
        -(-len(images) // size), verbose=verbose, unit_name="batch"
    )
    sigmas, changes = [], []
    for start in range(0, len(images), size):
        # A last batch that is smaller begins earlier, and gives its own images alone.
        begin = min(start, len(images) - size)
        search.begin(images[begin : begin + size], bound * scale)
        search.fit(np.zeros((steps, 1)), batch_size=1, verbose=0)
        gradients.forget(model)
        sigma, change = search.finish()
        sigmas.append(sigma[start - begin :])
        changes.append(change[start - begin :] / scale)
        bar.add(1)
    return PixelEntropies(np.concatenate(sigmas), np.concatenate(changes))


def _variance(model, images, tap, batch_size: int) -> float:
    """Give the sum over a layer's units of their variance over the images."""
    count, total, squares = 0, 0.0, 0.0
    for batch in in_batches(images, batch_size):
        found = ops.convert_to_numpy(taps.up_to(model, batch, [tap])[tap])
        found = np.asarray(found, "float64").reshape(len(found), -1)
        count += len(found)
        total, squares = total + found.sum(0), squares + (found**2).sum(0)
    variance = float((squares / count - (total / count) ** 2).sum())
    if not variance > 1e-12 * float((squares / count).sum() + 1.0):
        raise ValueError(
            f"The layer '{tap}' says the same of all {count} images, so its change has "
            "no measure. Give two images or more, and tap a layer that tells them apart."
        )
    return variance


class _Search(keras.Model):
    """A batch of images, the logarithms of sigma that are trained, and the layer.

    Args:
        net: the model whose layer is tapped.
        tap: of the layer.
        shape: of the batch.
        grid: cells a side.
        draws: pairs of noises a step.
        seed: of the noise.
        limit: the largest sigma.
    """

    def __init__(self, net, tap, shape, grid, draws, seed, limit):
        super().__init__(name="search")
        # In a function, so that the net's variables are not trained.
        self.look = lambda x: ops.cast(taps.up_to(net, x, [tap])[tap], "float32")
        self.limit = np.log(limit)
        self.draws, self.cell = draws, (shape[1] // grid, shape[2] // grid)
        self.noise = keras.random.SeedGenerator(seed)
        fixed = {"trainable": False, "initializer": "zeros"}
        self.images = self.add_weight(shape=shape, name="images", **fixed)
        self.allowed = self.add_weight(shape=(), name="allowed", **fixed)
        self.log_sigma = self.add_weight(
            shape=(shape[0], grid, grid),
            initializer="zeros",
            name="log_sigma",
            constraint=lambda found: ops.minimum(found, self.limit),
        )
        self.built = True

    def begin(self, images, allowed: float) -> None:
        """Take other images; start from a weak noise that is the same everywhere."""
        self.images.assign(images)
        self.allowed.assign(allowed)
        start = np.log(0.01) + self.limit
        self.log_sigma.assign(np.full(self.log_sigma.shape, start))
        self._fit_to_bound()
        rate = self.optimizer.learning_rate
        for variable in self.optimizer.variables:
            if variable is not rate:
                variable.assign(np.zeros(variable.shape))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Give sigma and the squared change that it makes, `(B,)`."""
        self._fit_to_bound()
        sigma = np.exp(ops.convert_to_numpy(self.log_sigma))
        change = self._measured(16)
        if not (np.isfinite(sigma).all() and np.isfinite(change).all()):
            raise ValueError(
                "The noise, or the change that it makes, is not finite. The layer's "
                "values, or the images', are not or are too large: look at both, and "
                "compute in float32."
            )
        return sigma, change

    def _fit_to_bound(self) -> None:
        """Make all noise of an image stronger or weaker until it meets the bound."""
        for _ in range(6):
            change = np.maximum(self._measured(4), 1e-12)
            # Where the layer is linear, the change goes by the square.
            nudge = 0.5 * np.log(float(self.allowed) / change)
            found = ops.convert_to_numpy(self.log_sigma)
            found = found + np.clip(nudge, -2.0, 2.0)[:, None, None]
            self.log_sigma.assign(np.minimum(found, self.limit))

    def _measured(self, draws: int) -> np.ndarray:
        found = [self.predict_on_batch(np.zeros((1, 1))) for _ in range(draws)]
        return np.mean(found, axis=0)

    def call(self, unused):
        """Give the mean squared change of each image's layer, `(B,)`."""
        del unused
        deviations = ops.exp(self.log_sigma)
        for axis, times in enumerate(self.cell, start=1):
            deviations = ops.repeat(deviations, times, axis=axis)
        clean, changes = self.look(self.images), []
        for _ in range(self.draws):
            noise = keras.random.normal(self.images.shape, seed=self.noise)
            noise = noise * deviations[..., None]
            for nudge in (noise, -noise):
                gap = self.look(self.images + nudge) - clean
                axes = tuple(range(1, len(gap.shape)))
                changes.append(ops.sum(ops.square(gap), axis=axes))
        return ops.mean(ops.stack(changes), axis=0)

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        """Give minus the Lagrangian, whose multiplier is that of a linear layer."""
        cells = self.log_sigma.shape[1] * self.log_sigma.shape[2]
        used = 0.5 * cells * y_pred / self.allowed
        return ops.sum(used) - ops.sum(self.log_sigma)
