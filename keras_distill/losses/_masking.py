"""Masks of sequences in losses: which steps of a side, or of both, count."""

import keras
from keras import ops


def without_masked(features, mask):
    """Return features with zeros at masked steps, `(B, L, ...)`.

    Zeros change no inner product, distance or length of flattened sequences, and no
    gradient flows to what stood there.
    """
    if mask is None:
        return features
    mask = ops.cast(mask, "bool")
    while len(mask.shape) < len(features.shape):
        mask = ops.expand_dims(mask, axis=-1)
    return ops.where(mask, features, 0.0)


def of_both(mask, teacher_mask):
    """Return the mask of the steps that are valid on both sides; None if all are."""
    if mask is None or teacher_mask is None or mask is teacher_mask:
        return teacher_mask if mask is None else mask
    return ops.logical_and(*(ops.cast(x, "bool") for x in (mask, teacher_mask)))


def inverse_fraction(mask, dtype):
    """Return the number of steps, or of pixels, over that of valid ones, `(B,)`.

    A mean over all steps, in which masked ones are 0, times this is the mean over the
    valid ones.
    """
    if mask is None:
        return 1.0
    mask = ops.reshape(ops.cast(mask, dtype), (ops.shape(mask)[0], -1))
    valid = ops.sum(mask, axis=1)
    return ops.cast(ops.shape(mask)[1], dtype) / ops.maximum(valid, 1.0)


def expanded(mask, features, dtype):
    """Return a mask of the rank of features, ones and zeros, 1 along the axes it lacks."""
    mask = ops.cast(mask, dtype)
    while len(mask.shape) < len(features.shape):
        mask = ops.expand_dims(mask, axis=-1)
    return mask


def fits(mask, features) -> bool:
    """Whether a mask has an entry for each step of features; unknown sizes fit."""
    pairs = zip(mask.shape[1:], features.shape[1:], strict=False)
    fewer = len(mask.shape) < len(features.shape)
    return fewer and all(a == b or None in (a, b) for a, b in pairs)


def masks_of_sides(name: str, teacher, student, context: dict) -> dict:
    """Return the mask of each side, None for tensors without steps.

    A side without a mask has that of the other, if their lengths agree.
    """
    sides = {"mask": first_of(student), "teacher_mask": first_of(teacher)}
    masks = dict.fromkeys(sides)
    for key, features in sides.items():
        mask = context.get(key)
        if mask is None or features is None or len(features.shape) <= len(mask.shape):
            continue
        if not fits(mask, features):
            raise ValueError(
                f"The {key} of the loss '{name}' has the shape {tuple(mask.shape)}, which "
                f"does not fit the sequence {tuple(features.shape)}. Tap layers of one "
                "length, or pass an adapter layer."
            )
        masks[key] = ops.convert_to_tensor(mask)
    for key, other in (("mask", "teacher_mask"), ("teacher_mask", "mask")):
        missing = masks[key] is None and masks[other] is not None
        if missing and sides[key] is not None and fits(masks[other], sides[key]):
            masks[key] = masks[other]
    return masks


def first_of(tensors):
    """Return the first tensor of a side, None if there is none."""
    return next(iter(keras.tree.flatten(tensors)), None)
