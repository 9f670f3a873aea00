"""Where in an image the layers of models are active, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_distill import taps
from keras_distill.analysis.predictions import in_batches


def attention_maps(
    model: keras.Model,
    images: np.ndarray,
    tap: str | taps.Tap,
    *,
    power: float = 2.0,
    batch_size: int = 256,
) -> np.ndarray:
    """Give how active a layer is at each place of each image.

        sum_c |A_c|^power, divided by its largest value

    Args:
        model: any.
        images: `(N, H, W, C)`.
        tap: of a layer that gives maps `(B, h, w, c)`.
        power: p >= 1. Default 2.
        batch_size: Default 256.

    Returns:
        `(N, h, w)`, 0 to 1; a layer that is silent gives zeros.

    Raises:
        ValueError: the layer gives no maps.

    Example:
        >>> maps = kd.analysis.attention_maps(student, digits.test.images[:8], "stack2")

    Source:
        Zagoruyko, Komodakis 2017, Paying more attention to attention.
    """
    (tap,) = taps.as_taps(tap)
    found = []
    for batch in in_batches(images, batch_size):
        features = ops.convert_to_numpy(taps.up_to(model, batch, [tap])[tap])
        if features.ndim != 4:
            raise ValueError(
                f"Attention has places where a layer gives maps (B, h, w, c); '{tap}' of "
                f"'{model.name}' gives {features.shape}. Tap an earlier layer."
            )
        maps = (np.abs(features.astype("float64")) ** power).sum(-1)
        peaks = maps.max((1, 2), keepdims=True)
        found.append(np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0))
    return np.concatenate(found)


def plot_attention_maps(images: np.ndarray, maps: Mapping[str, np.ndarray]):
    """Draw images, and below each the maps of every model.

    Args:
        images: `(N, H, W, C)` in `[0, 1]`, as many as shall be shown.
        maps: of `attention_maps`, by the name of the model.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> kd.analysis.plot_attention_maps(images, {"teacher": a, "student": b})
    """
    return plot_images({"image": images, **maps})


def plot_images(rows: Mapping[str, np.ndarray], *, cmap: str = "viridis"):
    """Draw rows of images or maps, one below another.

    Args:
        rows: by title, `(N, h, w)` or `(N, h, w, C)`; as many in each.
        cmap: colours of what has no channels, or one that is not a picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: rows of different lengths.

    Example:
        >>> kd.analysis.plot_images({"image": images, "entropy": entropies})
    """
    from matplotlib.figure import Figure

    counts = {title: len(row) for title, row in rows.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"Each row has as many images; got {counts}.")
    count = next(iter(counts.values()))
    figure = Figure(figsize=(1.2 * count + 1, 1.3 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (title, row) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, row, strict=True):
            is_gray = image.ndim == 3 and image.shape[-1] == 1
            image = image[..., 0] if is_gray else image
            axis.imshow(image, cmap="gray" if is_gray else cmap)
            axis.set_axis_off()
        line[0].set_title(title, loc="left", fontsize="small")
    return figure
