"""Checks of what arrays have in them, before the first step: kinds, sizes, finite values."""

from collections.abc import Callable

import keras
import numpy as np

from keras_distill._backend.array_kinds import kind_of
from keras_distill._backend.number_checks import check_in
from keras_distill.training.data_checks import check_classes, known_loss

# Rows of a block, whose sum shows whether any value is not finite.
_ROWS = 4096
# Rows that are looked at of what is not in memory.
_FEW = 32


def check_data(
    x,
    y=None,
    sample_weight=None,
    *,
    raw: bool = False,
    strings: bool = False,
    shapes=None,
    device: bool = True,
) -> None:
    """Check the arrays of inputs, labels and sample weights.

    Parts without a shape and a dtype, such as lists of strings, are left alone; of files
    that are mapped into memory the first rows are looked at.

    Args:
        x, y, sample_weight: structures of arrays or tensors.
        raw: whether models preprocess them, so that they may be strings.
        strings: whether inputs may be strings, which a layer of a model looks up.
        shapes: of the student's outputs, batch first, for the shapes of weights; None
            if they are unknown.
        device: whether values of tensors on a device are looked at, which waits for it.

    Raises:
        TypeError: labels or weights are strings; anything is complex or an object.
        ValueError: anything is empty, not finite, of another number of samples, or
            weights are negative or of a shape that no output has.
    """
    parts = {"x": x, "y": y, "sample_weight": sample_weight}
    named = {part: dict(_leaves(part, value)) for part, value in parts.items()}
    for part, leaves in named.items():
        for name, leaf in leaves.items():
            allowed = raw or (strings and part == "x")
            _check_kind(name, leaf, allowed, part)
            _check_size(name, leaf)
    _check_counts([pair for leaves in named.values() for pair in leaves.items()])
    if not raw:
        _check_shapes_of_weights(named, shapes)
    for leaves in named.values():
        for name, leaf in leaves.items():
            if device or not _is_tensor(leaf):
                _check_values(name, leaf, name.startswith("sample_weight"))


def _leaves(part: str, value):
    """Yield the arrays of a part with their names, as `x['image']`."""
    if value is None:
        return
    for path, leaf in keras.tree.flatten_with_path(value):
        if hasattr(leaf, "shape") and hasattr(leaf, "__array__"):
            keys = "".join(f"[{key!r}]" for key in path if not _is_internal(key))
            yield part + keys, leaf


def _is_tensor(leaf) -> bool:
    # Keras's own question takes as long as the sum of a batch.
    return not isinstance(leaf, np.ndarray) and keras.ops.is_tensor(leaf)


def _is_internal(key) -> bool:
    return isinstance(key, str) and key.startswith("kd_")


def _check_kind(name: str, leaf, strings: bool, part: str) -> None:
    kind = kind_of(leaf)
    if kind == "complex":
        raise TypeError(
            f"{name} is complex, {leaf.dtype}, and models take real numbers: pass the "
            "real and imaginary parts as channels, for example."
        )
    if kind == "string" and not strings:
        fix = {
            "x": "Convert them, by keras.layers.StringLookup for example.",
            "y": "Map classes to numbers: np.unique(labels, return_inverse=True)[1].",
        }
        raise TypeError(
            f"{name} is strings, {leaf.dtype}; expected numbers. {fix.get(part, '')}"
        )
    if kind is None:
        raise TypeError(
            f"{name} has the dtype {leaf.dtype}; expected numbers. An array of objects "
            "is made of rows of different lengths, or of mixed kinds: pad the rows, or "
            "convert it, as in np.asarray(x, 'float32')."
        )


def _check_size(name: str, leaf) -> None:
    shape = tuple(leaf.shape)
    if not shape:
        raise ValueError(
            f"{name} is a scalar; expected an array of samples, of shape (B, ...). "
            "To batch a tf.data.Dataset of samples, call .batch(n)."
        )
    if 0 in shape:
        what = "the data are empty" if shape[0] == 0 else "an axis has the size 0"
        raise ValueError(
            f"{name} is empty, of the shape {shape}: {what}. Check the filter, the split "
            "or the path that the data come from."
        )


def _check_counts(leaves: list) -> None:
    counts = {name: leaf.shape[0] for name, leaf in leaves}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ValueError(
            f"Inputs, labels and weights must have the same number of samples; {listed}."
        )


def _check_shapes_of_weights(named: dict, shapes) -> None:
    """Check that each array of weights is one per sample, or per part of an output."""
    others = [*named["y"].values()] or [*named["x"].values()]
    known = [tuple(leaf.shape) for leaf in others]
    if shapes is None and named["y"]:
        known += [tuple(leaf.shape) for leaf in named["x"].values()]
    known += [(None, *shape[1:]) for shape in shapes or ()]
    for name, leaf in named["sample_weight"].items():
        shape = tuple(leaf.shape)
        if len(shape) > 1 and not any(_leads(shape, other) for other in known):
            raise ValueError(
                f"{name} has the shape {shape}; expected one weight per sample, (B,), or "
                "one per token or pixel of the labels or outputs, whose shapes are "
                f"{list(dict.fromkeys(known))}."
            )


def _leads(shape: tuple, other: tuple) -> bool:
    """Whether a shape, behind the batch, is how another begins; 1 fits all."""
    if all(size == 1 for size in shape[1:]):
        return True
    pairs = zip(shape[1:], other[1:], strict=False)
    fits = all(a in (b, 1) or b is None for a, b in pairs)
    return fits and len(shape) <= len(other)


def check_class_weight(class_weight: dict | None) -> None:
    """Check that the weights of classes are finite numbers of 0 or more."""
    for name, value in (class_weight or {}).items():
        check_in(0, **{f"class_weight[{name!r}]": value})


def check_range(y, loss, classes: int | None, device: bool = True) -> None:
    """Check that the labels of an output are within its classes, if its loss takes them.

    Args:
        y: labels of the output, or None.
        loss: of the output.
        classes: number of its logits, None if unknown.
        device: as in `check_data`.
    """
    is_array = hasattr(y, "shape") and hasattr(y, "__array__")
    losses = [part for part in keras.tree.flatten(loss) if _takes_classes(part)]
    if not is_array or not losses or (_is_tensor(y) and not device):
        return
    loss = losses[0]
    options, known = getattr(loss, "keywords", {}), known_loss(loss)
    if isinstance(known, keras.losses.Loss):
        options = known.get_config()
    check_classes(y, classes, options.get("ignore_class"))


def check_whole(y, loss_of: Callable, device: bool = True) -> None:
    """Check that labels of a loss that takes classes as numbers are whole numbers.

    Args:
        y: labels, or a structure of those of each output.
        loss_of: function from the key or index of an output in `y`, None for labels of
            all, to what was compiled for it.
        device: as in `check_data`.
    """
    for name, leaf in _leaves("y", y):
        key, *_ = (*_keys_of(y, leaf), None)
        if _takes_classes(loss_of(key)) and (device or not _is_tensor(leaf)):
            _check_whole(name, leaf)


def _keys_of(y, leaf) -> tuple:
    return next(path for path, x in keras.tree.flatten_with_path(y) if x is leaf)


def _takes_classes(loss) -> bool:
    """Whether a loss, or one of several for the same labels, takes them as numbers."""
    kind = keras.losses.SparseCategoricalCrossentropy
    function = keras.losses.sparse_categorical_crossentropy
    known = [known_loss(part) for part in keras.tree.flatten(loss) if part is not None]
    return any(isinstance(x, kind) or x is function for x in known)


def _check_whole(name: str, leaf) -> None:
    array = keras.ops.convert_to_numpy(leaf) if _is_tensor(leaf) else leaf
    array = np.asarray(array)
    if array.dtype.kind in "biu":
        return
    array = array.astype("float64")
    if (wrong := array[array != np.round(array)]).size:
        raise ValueError(
            f"{name} must be whole numbers, the classes that the sparse loss takes; got "
            f"{wrong[:5].tolist()}. Rows of probabilities need "
            "keras.losses.CategoricalCrossentropy; numbers, a loss of regression."
        )


def _check_values(name: str, leaf, are_weights: bool) -> None:
    if kind_of(leaf) != "number":
        return
    if not is_finite(leaf):
        fix = (
            "Give samples that should not count a weight of 0."
            if are_weights
            else "Replace missing values, or leave those samples out; labels that are "
            "missing take any number, and a sample_weight of 0."
        )
        raise ValueError(
            f"{name} is not finite: it has NaN or infinite values, or some too large for "
            f"float32. {fix}"
        )
    if are_weights and _least(leaf) < 0:
        raise ValueError(
            f"{name} has negative weights, the least {_least(leaf):g}; expected 0 or "
            "more. A negative weight would push the student away from its targets."
        )


def is_finite(leaf) -> bool:
    """Whether an array or tensor has neither NaN nor infinite values."""
    if _is_tensor(leaf):
        if not keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(leaf.dtype)
        ):
            return True
        return bool(keras.ops.all(keras.ops.isfinite(leaf)))
    array = _in_memory(leaf)
    if array.dtype.kind in "biu":
        return True
    blocks = (array[i : i + _ROWS] for i in range(0, len(array), _ROWS))
    return all(map(_block_is_finite, blocks))


def _block_is_finite(block) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        if block.dtype.itemsize == 8:
            is_wide = keras.config.floatx() == "float64"
            largest = np.finfo("float64" if is_wide else "float32").max
            return bool((np.abs(block) <= largest).all())
        # A sum is not finite if a value is not, and seldom else.
        return bool(np.isfinite(block.sum(dtype="float32")) or np.isfinite(block).all())


def _least(leaf) -> float:
    if _is_tensor(leaf):
        return float(keras.ops.convert_to_numpy(keras.ops.min(leaf)))
    return float(_in_memory(leaf).min())


def _in_memory(leaf):
    """Return an array, of a mapped or stored one its first rows."""
    is_stored = isinstance(leaf, np.memmap) or not (
        isinstance(leaf, np.ndarray) or hasattr(leaf, "iloc") or hasattr(leaf, "numpy")
    )
    return np.asarray(leaf[:_FEW] if is_stored else leaf)
