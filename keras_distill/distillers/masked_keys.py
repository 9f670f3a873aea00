"""Attention scores whose masked keys are left out on one side alone."""

import warnings

import keras
from keras import ops


def warn_of_masked_keys(bound, features: dict, knowledge: dict) -> None:
    """Warn of keys that one side's attention leaves out, and the other's does not.

    A mask that a layer lost on one side, as one without `supports_masking` does, leaves
    scores that no term can compare: their divergence grows with the padding.

    Args:
        bound: a term at work.
        features: the student's tensors by tap.
        knowledge: the teacher's by tap, or a list of those of each member.
    """
    for tap, known in zip(bound.term.student, bound.term.teacher, strict=False):
        if not (tap.is_scores and known.is_scores) or tap not in features:
            continue
        own = _left_out(features[tap], tap.side)
        for tensor in keras.tree.flatten(knowledge.get(known)):
            other = _left_out(tensor, known.side)
            if own is None or other is None or own.shape != other.shape:
                continue
            if bool(ops.any(own)) != bool(ops.any(other)):
                _warn(bound.name, tap, known, bool(ops.any(own)))
                return


def _left_out(scores, side: str):
    """Return which keys no query takes anything of, `(B, S)`; None without steps."""
    if scores is None or len(scores.shape) != 4:
        return None
    # Logarithms of such keys are -1000, of all others above -86.
    lowest = -500.0 if side == "log_scores" else 0.0
    return ops.max(ops.cast(scores, "float32"), axis=(1, 2)) <= lowest


def _warn(name: str, student, teacher, is_student: bool) -> None:
    masked, other = ("student", "teacher") if is_student else ("teacher", "student")
    tap = teacher if is_student else student
    warnings.warn(
        f"Term '{name}': on the first batch the {masked}'s attention leaves keys out, as "
        f"masked ones, and the {other}'s '{tap}' none: the term then compares padding, and "
        f"grows with its length. Did the {other} lose its mask? A layer without "
        "supports_masking drops it. Tap a layer in front of that, or keep the mask up to "
        f"'{tap.path}'.",
        stacklevel=4,
    )
