"""Checks of masks, and of attention scores under them."""

from collections.abc import Iterable, Sequence

from keras_distill.distillers.context import AUTO
from keras_distill.losses._masking import fits
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.taps.lengths import Lengths
from keras_distill.teachers.base_teacher import CLASSES, LABELS


def check_masks(name: str, masks: Sequence) -> None:
    """Check the choices of a term's masks."""
    for mask in masks:
        kinds = mask is None or isinstance(mask, (str, int)) or callable(mask)
        if len(masks) != 2 or not kinds:
            raise TypeError(
                f"The mask of term '{name}' must be 'auto', None, the key of an input, a "
                f"function of the inputs, or a pair of these; got {mask!r}."
            )


def check_padding_masks(terms: Iterable, student: Lengths, teacher: Lengths) -> None:
    """Check that it is clear which padding mask a term's sequences have, and fits them."""
    for term in terms:
        sides = ("student", student, term.student), ("teacher", teacher, term.teacher)
        for choice, (side, lengths, taps) in zip(term.masks, sides, strict=True):
            if choice == AUTO and taps:
                _check_padding_mask(term.name, side, str(taps[0]), lengths)


def _check_padding_mask(name: str, side: str, tap: str, lengths: Lengths) -> None:
    masks, shape = lengths.masks.get(tap, ()), lengths.sizes[tap]
    several, fix = len(masks) > 1, "Pass mask= the key of the right input, or None."
    if several or any(mask.length != shape[1] for mask in masks):
        problem = (
            f"could be masked by {len(masks)} inputs of {shape[1]} steps"
            if several
            else f"has {shape[1]} steps, but its padding mask has {masks[0].length}"
        )
        raise ValueError(f"Term '{name}': the {side}'s '{tap}' {problem}. {fix}")


def check_mask(name: str, mask, tensors: Sequence) -> None:
    """Check that a mask has the length of what it masks, which pooling may change."""
    features = tensors[0] if tensors else None
    if mask is None or features is None or len(features.shape) <= len(mask.shape):
        return
    if not fits(mask, features):
        raise ValueError(
            f"Term '{name}': a mask of {mask.shape[1]} steps does not fit a sequence of "
            f"{features.shape[1]} steps, its shape after the adapter. Tap layers of one "
            "length, or pass an adapter layer that keeps it."
        )


def check_takes_scores(name: str, loss: DistillationLoss, taps: Iterable) -> None:
    """Check that no softmax or sigmoid is taken of attention scores."""
    for tap in taps:
        of_logits = loss.predicts in (CLASSES, LABELS)
        if tap.side == "scores" and of_logits and "scores" not in loss.masked_scores:
            what = "sigmoid" if loss.predicts == LABELS else "softmax"
            raise ValueError(
                f"Term '{name}': {type(loss).__name__} takes a {what} of what it compares, "
                f"and '{tap}' are probabilities already. Tap their logarithms: "
                f"kd.Tap({tap.path!r}, side='log_scores')."
            )


def check_masked_scores(term, masks: Sequence) -> None:
    """Check that masked keys of attention scores add nothing to a term's loss."""
    loss, taps = term.loss, (*term.student, *term.teacher)
    if all(mask is None for mask in masks):
        return
    for tap in taps:
        if tap.is_scores and tap.side not in loss.masked_scores:
            takes = [x for x in ("scores", "log_scores") if x in loss.masked_scores]
            fix = f"Tap side={takes[0]!r}, use " if takes else "Use "
            raise ValueError(
                f"Term '{term.name}': the attention scores of '{tap}' have a mask, and "
                f"{type(loss).__name__} would count masked keys of side={tap.side!r}. "
                f"{fix}kd.losses.SoftTarget(1.0) on side='log_scores' or "
                "kd.losses.LogitRegression on side='scores', or, in a loss of your own to "
                "which masked keys add nothing, name the side in `masked_scores`."
            )


def check_scores(tap, student_shape: Sequence, teacher_shape: Sequence) -> None:
    """Check that attention scores have the same heads, which no adapter is inferred for."""
    pairs = zip(student_shape[1:], teacher_shape[1:], strict=False)
    if tap.is_scores and any(a != b for a, b in pairs if None not in (a, b)):
        raise ValueError(
            f"The attention scores (B, T, N, S) of student {tuple(student_shape)} and "
            f"teacher {tuple(teacher_shape)} differ in steps or in the number N of heads: "
            "no adapter is inferred. Tap layers of as many heads, or pass layers that "
            "average them as adapters."
        )
