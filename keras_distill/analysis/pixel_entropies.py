"""Pixel entropies: how much of each part of an image a layer discards."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_distill import taps
from keras_distill._backend import gradients
from keras_distill._backend.number_checks import check_above, check_integers
from keras_distill.analysis.predictions import in_batches
from keras_distill.taps.layouts import channels_first_error, channels_first_layers

# Entropy of the standard normal distribution, in nats.
UNIT_ENTROPY = 0.5 * np.log(2.0 * np.pi * np.e)


@dataclasses.dataclass(frozen=True)
class PixelEntropies:
    """Noise that each cell of each image tolerates.

    Args:
        sigma: standard deviation of the noise, `(N, g, g)`, in units of the images.
        change: mean squared change of the layer under this noise, relative to the
            variance of the layer over the images, `(N,)`; close to the bound.

    Example:
        >>> noise = kd.analysis.PixelEntropies(sigma=np.ones((1, 2, 2)), change=[0.1])
        >>> noise.entropies.round(2).tolist()
        [[[1.42, 1.42], [1.42, 1.42]]]
    """

    sigma: np.ndarray
    change: np.ndarray

    @property
    def entropies(self) -> np.ndarray:
        """Return H = log sigma + log(2 pi e) / 2 of each cell, `(N, g, g)`, in nats."""
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
    r"""Find the strongest noise in each cell of an image that leaves a layer unchanged.

    Strong noise is possible where the layer discards the image, and only weak noise where
    the layer uses it. For noise x' ~ N(x, diag(sigma^2)), with one sigma per cell,

    .. math::

        \max_\sigma \sum_i \log \sigma_i \quad \text{where} \quad
            \mathrm{E} \lVert f(x') - f(x) \rVert^2 \le \mathrm{bound} \cdot \mathrm{var} \, f

    with the variance over all images. Adam maximizes the Lagrangian, whose optimum meets
    the bound if f is linear; then one factor per image is searched for that meets it for
    the actual f. All images of a batch are optimized together. Sigma is at most the range
    of the images, maximum minus minimum, because cells without any effect on the layer
    tolerate any noise.

    Args:
        model: a model with one input.
        images: two or more, `(N, H, W, C)`.
        tap: any layer.
        bound: on the change, relative to the variance. Default 0.1.
        grid: g, number of cells per side; divides height and width. Default 16.
        steps: number of steps of Adam. Default 100.
        learning_rate: of log sigma. Default 0.1.
        draws: antithetic pairs of noise per step. Default 2.
        batch_size: number of images that are optimized together. Default 64.
        seed: of the noise. Default 0.
        verbose: 1 for a progress bar; 0 (default) for none.

    Returns:
        `PixelEntropies`.

    Raises:
        ValueError: the grid does not divide the images, the bound is not above 0, the
            layer's output is the same for all images, the change is not finite, or the
            model computes with channels first.

    Example:
        >>> found = kd.analysis.pixel_entropies(
        ...     student, images[:32], "stack2", grid=4, steps=20)
        >>> found.entropies.shape
        (32, 4, 4)

    Source:
        Cheng et al. 2020, Explaining knowledge distillation by quantifying the
        knowledge.
    """
    if images.ndim == 4 and channels_first_layers(model):
        raise ValueError(channels_first_error(model, "an image"))
    check_integers(1, grid=grid, steps=steps, draws=draws, batch_size=batch_size)
    check_integers(0, seed=seed)
    check_above(0, bound=bound, learning_rate=learning_rate)
    height, width = images.shape[1:3]
    if height % grid or width % grid:
        raise ValueError(
            "Expected `grid` to divide height and width; got images of "
            f"{height} by {width} and grid={grid}."
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
        # A last batch that is smaller begins earlier; only its new images are kept.
        begin = min(start, len(images) - size)
        search.reset(images[begin : begin + size], bound * scale)
        search.fit(np.zeros((steps, 1)), batch_size=1, verbose=0)
        gradients.forget_gradients(model)
        sigma, change = search.finish()
        sigmas.append(sigma[start - begin :])
        changes.append(change[start - begin :] / scale)
        bar.add(1)
    return PixelEntropies(np.concatenate(sigmas), np.concatenate(changes))


def _variance(model, images, tap, batch_size: int) -> float:
    """Return the sum over a layer's units of their variance over the images."""
    count, total, squares = 0, 0.0, 0.0
    for batch in in_batches(images, batch_size):
        outputs = ops.convert_to_numpy(taps.up_to(model, batch, [tap])[tap])
        outputs = np.asarray(outputs, "float64").reshape(len(outputs), -1)
        count += len(outputs)
        total, squares = total + outputs.sum(0), squares + (outputs**2).sum(0)
    variance = float((squares / count - (total / count) ** 2).sum())
    if not variance > 1e-12 * float((squares / count).sum() + 1.0):
        raise ValueError(
            f"The output of layer '{tap}' is the same for all {count} images, so its "
            "change has no scale. Pass at least two images, and tap a layer whose output "
            "depends on them."
        )
    return variance


class _Search(keras.Model):
    """Model whose trainable weights are the logarithms of sigma for a batch of images."""

    def __init__(self, model, tap, shape, grid, draws, seed, limit):
        super().__init__(name="search")
        # In a function, so that the model's variables are not tracked.
        self.features = lambda x: ops.cast(taps.up_to(model, x, [tap])[tap], "float32")
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
            constraint=lambda value: ops.minimum(value, self.limit),
        )
        self.built = True

    def reset(self, images, allowed: float) -> None:
        """Start with new images, a weak and uniform noise, and a reset optimizer."""
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
        """Return sigma, `(B, g, g)`, and the squared change of the layer, `(B,)`."""
        self._fit_to_bound()
        sigma = np.exp(ops.convert_to_numpy(self.log_sigma))
        change = self._mean_change(16)
        if not (np.isfinite(sigma).all() and np.isfinite(change).all()):
            raise ValueError(
                "The noise, or the change of the layer, is not finite, because values of "
                "the layer or of the images are too large or not finite. Check both, and "
                "compute in float32."
            )
        return sigma, change

    def _fit_to_bound(self) -> None:
        """Scale the noise of each image by one factor until it meets the bound."""
        for _ in range(6):
            change = np.maximum(self._mean_change(4), 1e-12)
            # The change of a linear layer is quadratic in sigma.
            shift = 0.5 * np.log(float(self.allowed) / change)
            shift = np.clip(shift, -2.0, 2.0)[:, None, None]
            log_sigma = ops.convert_to_numpy(self.log_sigma) + shift
            self.log_sigma.assign(np.minimum(log_sigma, self.limit))

    def _mean_change(self, draws: int) -> np.ndarray:
        changes = [self.predict_on_batch(np.zeros((1, 1))) for _ in range(draws)]
        return np.mean(changes, axis=0)

    def call(self, unused):
        """Return the mean squared change of the layer for each image, `(B,)`."""
        del unused
        sigma = ops.exp(self.log_sigma)
        for axis, size in enumerate(self.cell, start=1):
            sigma = ops.repeat(sigma, size, axis=axis)
        clean, changes = self.features(self.images), []
        for _ in range(self.draws):
            noise = keras.random.normal(self.images.shape, seed=self.noise)
            noise = noise * sigma[..., None]
            for signed in (noise, -noise):
                change = self.features(self.images + signed) - clean
                axes = tuple(range(1, len(change.shape)))
                changes.append(ops.sum(ops.square(change), axis=axes))
        return ops.mean(ops.stack(changes), axis=0)

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        """Return the negative Lagrangian, with the multiplier of a linear layer."""
        cells = self.log_sigma.shape[1] * self.log_sigma.shape[2]
        penalty = 0.5 * cells * y_pred / self.allowed
        return ops.sum(penalty) - ops.sum(self.log_sigma)
