"""Attention maps of layers, side by side with the images."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_distill import taps
from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.analysis.figures import new_figure
from keras_distill.analysis.predictions import in_batches
from keras_distill.taps.layouts import check_channels_last


def attention_maps(
    model: keras.Model,
    images: np.ndarray,
    tap: str | taps.Tap,
    *,
    power: float = 2.0,
    batch_size: int = 256,
) -> np.ndarray:
    r"""Compute the activation-based attention map of a layer for each image.

    .. math::

        \frac{F}{\max F}, \quad F = \sum_c |A_c|^p

    Args:
        model: any model.
        images: `(N, H, W, C)`.
        tap: a layer with outputs of shape `(B, h, w, c)`.
        power: p >= 1. Default 2.
        batch_size: Default 256.

    Returns:
        `(N, h, w)`, between 0 and 1; zeros where all activations are zero.

    Raises:
        ValueError: the layer's output is not of rank 4, or has its channels first.

    Example:
        >>> maps = kd.analysis.attention_maps(student, digits.test.images[:8], "stack2")

    Source:
        Zagoruyko, Komodakis 2017, Paying more attention to attention.
    """
    check_in(1, power=power)
    check_integers(1, batch_size=batch_size)
    (tap,) = taps.as_taps(tap)
    check_channels_last(model, keras.KerasTensor((None, *images.shape[1:])), [tap])
    parts = []
    for batch in in_batches(images, batch_size):
        features = ops.convert_to_numpy(taps.up_to(model, batch, [tap])[tap])
        if features.ndim != 4:
            raise ValueError(
                f"Attention maps need a layer with outputs (B, h, w, c); '{tap}' of "
                f"'{model.name}' has outputs {features.shape}. Tap an earlier layer."
            )
        maps = (np.abs(features.astype("float64")) ** power).sum(-1)
        peaks = maps.max((1, 2), keepdims=True)
        parts.append(np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0))
    return np.concatenate(parts)


def plot_attention_maps(images: np.ndarray, maps: Mapping[str, np.ndarray]):
    """Return a figure of images, with the attention maps of each model below.

    Args:
        images: the images to show, `(N, H, W, C)` in `[0, 1]`.
        maps: results of `attention_maps`, by the name of the model.

    Example:
        >>> models = {"teacher": teacher, "student": student}
        >>> maps = {name: kd.analysis.attention_maps(model, images[:8], "stack2")
        ...         for name, model in models.items()}
        >>> kd.analysis.plot_attention_maps(images[:8], maps)
    """
    return plot_images({"image": images, **maps})


def plot_images(rows: Mapping[str, np.ndarray], *, cmap: str = "viridis"):
    """Return a figure of rows of images or maps.

    Args:
        rows: by title, `(N, h, w)` or `(N, h, w, C)`, with the same N in each row.
        cmap: colormap of maps without a channel axis.

    Raises:
        ValueError: the rows differ in length.

    Example:
        >>> kd.analysis.plot_images({"image": images[:8], "entropy": entropies[:8]})
    """
    counts = {title: len(row) for title, row in rows.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"Expected the same number of images per row; got {counts}.")
    count = next(iter(counts.values()))
    figure, axes = new_figure(1.2 * count + 1, 1.3 * len(rows), len(rows), count)
    for line, (title, row) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, row, strict=True):
            is_gray = image.ndim == 3 and image.shape[-1] == 1
            image = image[..., 0] if is_gray else image
            axis.imshow(image, cmap="gray" if is_gray else cmap)
            axis.set_axis_off()
        line[0].set_title(title, loc="left", fontsize="small")
    return figure
