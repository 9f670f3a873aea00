"""Digits on textured backgrounds: images with a known position of the object."""

import numpy as np

from keras_distill._backend.number_checks import check_integers
from keras_distill.data.load import load
from keras_distill.data.samples import Samples


def textured_digits(
    samples: Samples | None = None, *, size: int = 32, seed: int = 0
) -> tuple[Samples, np.ndarray]:
    """Place digits at random on textured backgrounds, and return masks of the digits.

    The masks allow attention maps to be evaluated. Each image has a background of waves
    and noise between two random colors, and on it an enlarged digit at a random
    position, in a random color, so that the class shows in the shape alone.

    Args:
        samples: digits `(N, 8, 8, 1)` in `[0, 1]`. Default: the training images of
            `kd.data.load("digits")`.
        size: height and width of the images, 16 or more. Default 32.
        seed: seed of backgrounds, positions and colors. Default 0.

    Returns:
        Samples with images `(N, size, size, 3)` in `[0, 1]`, and masks `(N, size,
        size)`, True on the digit.

    Raises:
        ValueError: digits of another shape, or `size` below 16.

    Example:
        >>> train, masks = kd.data.textured_digits()
        >>> train.images.shape, masks.shape
        ((1438, 32, 32, 3), (1438, 32, 32))
    """
    samples = load("digits").train if samples is None else samples
    check_integers(1, size=size)
    check_integers(0, seed=seed)
    if samples.images.shape[1:] != (8, 8, 1) or size < 16:
        raise ValueError(
            "Expected digits (N, 8, 8, 1) and a size of at least 16 pixels; got "
            f"{samples.images.shape} and size={size}."
        )
    rng = np.random.default_rng(seed)
    scale = max(2, size // 12)
    strokes = np.zeros((len(samples), size, size), "float32")
    for stroke, digit in zip(strokes, samples.images[..., 0], strict=True):
        large = np.kron(digit, np.ones((scale, scale), "float32"))
        top, left = rng.integers(0, size - len(large) + 1, 2)
        stroke[top : top + len(large), left : left + len(large)] = large
    backgrounds = _backgrounds(len(samples), size, rng)
    inks = rng.uniform(0.0, 1.0, (len(samples), 1, 1, 3)).astype("float32")
    # Far from the background's mean, so that the digit is visible.
    darker = backgrounds.mean((1, 2, 3), keepdims=True) > 0.5
    inks = np.where(darker, 0.4 * inks, 0.6 + 0.4 * inks)
    opacity = strokes[..., None]
    images = (1.0 - opacity) * backgrounds + opacity * inks
    return Samples(images, samples.labels, samples.ids), strokes > 0.5


def _backgrounds(count: int, size: int, rng) -> np.ndarray:
    """Return waves of random direction plus noise, between two colors per image."""
    rows, columns = np.mgrid[:size, :size].astype("float32") / size
    waves = np.zeros((count, size, size), "float32")
    for _ in range(3):
        frequency = rng.uniform(-6.0, 6.0, (2, count, 1, 1)).astype("float32")
        phase = rng.uniform(0.0, 1.0, (count, 1, 1)).astype("float32")
        angle = frequency[0] * rows + frequency[1] * columns + phase
        waves += np.sin(2.0 * np.pi * angle) / 3.0
    waves += rng.normal(0.0, 0.3, waves.shape).astype("float32")
    mix = np.clip(0.5 + 0.5 * waves, 0.0, 1.0)[..., None]
    colors = rng.uniform(0.0, 1.0, (2, count, 1, 1, 3)).astype("float32")
    # Both colors of an image are dark, or both are bright.
    bright = rng.integers(0, 2, (count, 1, 1, 1)).astype("float32")
    colors = 0.35 * colors + 0.65 * bright
    return mix * colors[0] + (1.0 - mix) * colors[1]
