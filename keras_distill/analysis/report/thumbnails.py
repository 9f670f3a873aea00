"""Small images in a page."""

import base64
import io

import numpy as np

_SIZE = 56


def are_images(x) -> bool:
    """Return True if inputs look like images.

    They have 1, 3 or 4 channels, or none: then at least 8 rows and columns of integers
    from 0 to 255.
    """
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "uif":
        return False
    if x.ndim == 4:
        return x.shape[-1] in (1, 3, 4) or x.shape[1] in (1, 3, 4)
    return x.ndim == 3 and x.dtype == np.uint8 and min(x.shape[1:]) >= 8


def value_range(images: np.ndarray) -> tuple[float, float]:
    """Return the values of black and white: 0 and 1, 0 and 255, or the extremes."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    if low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    if low >= 0.0 and 1.5 < high <= 255.0:
        return 0.0, 255.0
    return low, max(high, low + 1e-12)


def thumbnail(image: np.ndarray, limits: tuple[float, float]) -> str:
    """Return an image as the address of a small PNG that is embedded in the page."""
    from matplotlib.image import imsave

    image = shrunk(channels_last(image))
    low, high = limits
    levels = np.clip((image - low) / (high - low), 0.0, 1.0)
    if levels.shape[-1] == 1:
        levels = np.repeat(levels, 3, axis=-1)
    buffer = io.BytesIO()
    imsave(buffer, np.nan_to_num(levels), format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def channels_last(image: np.ndarray) -> np.ndarray:
    """Return one image as `(H, W, C)`."""
    if image.ndim == 2:
        return image[..., None]
    if image.shape[-1] not in (1, 3, 4):
        return np.moveaxis(image, 0, -1)
    return image


def shrunk(image: np.ndarray, size: int = _SIZE) -> np.ndarray:
    """Return an image or a map, averaged over squares until no side is above a size."""
    step = -(-max(image.shape[:2]) // size)
    if step <= 1:
        return image.astype("float64")
    rows, columns = (max(1, n // step) for n in image.shape[:2])
    part = image[: rows * step, : columns * step].astype("float64")
    shape = (rows, part.shape[0] // rows, columns, part.shape[1] // columns)
    return part.reshape(*shape, *image.shape[2:]).mean((1, 3))
