"""Digits on textured ground: images of which it is known what is the object."""

from __future__ import annotations

import numpy as np

from keras_distill.data.load import load
from keras_distill.data.samples import Samples


def textured_digits(
    samples: Samples | None = None, *, size: int = 32, seed: int = 0
) -> tuple[Samples, np.ndarray]:
    """Put digits somewhere on textured ground; give images and where the digit is.

    What a net looks at can be judged where the object's place is known. Each image has
    a ground of waves and noise in colours of its own, and on it, at a random place, a
    digit, enlarged, in another colour of random brightness, so that no colour tells
    the class and only the shape does.

    Args:
        samples: digits `(N, 8, 8, 1)` in `[0, 1]`. Default: the training images of
            `kd.data.load("digits")`.
        size: height and width of the images, 16 or more. Default 32.
        seed: of grounds, places and colours. Default 0.

    Returns:
        Samples with images `(N, size, size, 3)` in `[0, 1]`, and masks `(N, size,
        size)`, True on the digit.

    Raises:
        ValueError: digits of another shape, or too small a size.

    Example:
        >>> train, masks = kd.data.textured_digits()
        >>> train.images.shape, masks.mean()
        ((1438, 32, 32, 3), 0.07)
    """
    samples = load("digits").train if samples is None else samples
    if samples.images.shape[1:] != (8, 8, 1) or size < 16:
        raise ValueError(
            "Digits are (N, 8, 8, 1), put on images of 16 pixels a side or more; got "
            f"{samples.images.shape} and size={size}."
        )
    rng = np.random.default_rng(seed)
    scale = max(2, size // 12)
    strokes = np.zeros((len(samples), size, size), "float32")
    for stroke, digit in zip(strokes, samples.images[..., 0], strict=True):
        large = np.kron(digit, np.ones((scale, scale), "float32"))
        top, left = rng.integers(0, size - len(large) + 1, 2)
        stroke[top : top + len(large), left : left + len(large)] = large
    grounds = _grounds(len(samples), size, rng)
    inks = rng.uniform(0.0, 1.0, (len(samples), 1, 1, 3)).astype("float32")
    # Away from the ground's mean, so that the digit can be seen.
    darker = grounds.mean((1, 2, 3), keepdims=True) > 0.5
    inks = np.where(darker, 0.4 * inks, 0.6 + 0.4 * inks)
    shares = strokes[..., None]
    images = (1.0 - shares) * grounds + shares * inks
    return Samples(images, samples.labels, samples.ids), strokes > 0.5


def _grounds(count: int, size: int, rng) -> np.ndarray:
    """Give waves of random direction, and noise, between two colours an image."""
    rows, columns = np.mgrid[:size, :size].astype("float32") / size
    waves = np.zeros((count, size, size), "float32")
    for _ in range(3):
        slope = rng.uniform(-6.0, 6.0, (2, count, 1, 1)).astype("float32")
        phase = rng.uniform(0.0, 1.0, (count, 1, 1)).astype("float32")
        angle = slope[0] * rows + slope[1] * columns + phase
        waves += np.sin(2.0 * np.pi * angle) / 3.0
    waves += rng.normal(0.0, 0.3, waves.shape).astype("float32")
    share = np.clip(0.5 + 0.5 * waves, 0.0, 1.0)[..., None]
    colours = rng.uniform(0.0, 1.0, (2, count, 1, 1, 3)).astype("float32")
    # Of a dark image both are dark, of a bright one both bright.
    bright = rng.integers(0, 2, (count, 1, 1, 1)).astype("float32")
    colours = 0.35 * colours + 0.65 * bright
    return share * colours[0] + (1.0 - share) * colours[1]
