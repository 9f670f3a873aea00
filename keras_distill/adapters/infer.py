"""Which adapters make two shapes agree."""

from __future__ import annotations

import keras
from keras import layers

from keras_distill.adapters.average_pool import AveragePool

Shape = tuple[int | None, ...]


def infer(
    student: Shape, teacher: Shape, match: str
) -> tuple[keras.Layer | None, keras.Layer | None]:
    """Infer from two shapes what makes them agree in what a loss compares.

    Args:
        student: shape of the student's tensor, batch first.
        teacher: shape of the teacher's.
        match: what must agree: `"all"`, `"space"` (all axes but batch and channels),
            `"channels"` or `"nothing"`.

    Returns:
        The layer for the student and the layer for the teacher, None for no layer.

    Raises:
        ValueError: no adapter joins the shapes.

    Example:
        >>> own, other = kd.adapters.infer((None, 8, 8, 16), (None, 4, 4, 64), "all")
    """
    pool_student = pool_teacher = project = None
    if match in ("all", "space"):
        if len(student) != len(teacher):
            raise ValueError(
                f"no adapter joins the student's shape {student} and the teacher's "
                f"{teacher}: they have {len(student)} and {len(teacher)} axes. Tap two "
                "vectors, two sequences or two maps, or give an adapter layer."
            )
        pool_student, pool_teacher = _pooling(student, teacher)
    if match in ("all", "channels") and student[-1] != teacher[-1]:
        project = _projection(student, teacher)
    return chain([pool_student, project]), pool_teacher


def _projection(student: Shape, teacher: Shape) -> keras.Layer:
    if student[-1] is None or teacher[-1] is None:
        raise ValueError(
            f"no adapter joins the student's shape {student} and the teacher's "
            f"{teacher}: the channels must be known."
        )
    if len(student) == 4:
        return layers.Conv2D(teacher[-1], 1, dtype="float32", name="projection")
    return layers.Dense(teacher[-1], dtype="float32", name="projection")


def _pooling(student: Shape, teacher: Shape):
    """Pool whichever is larger; axes are never enlarged, as that invents detail."""
    sizes, targets = student[1:-1], teacher[1:-1]
    if sizes == targets:
        return None, None
    if None in sizes or None in targets or len(sizes) > 3:
        raise ValueError(
            f"no adapter joins the student's shape {student} and the teacher's "
            f"{teacher}: pooling needs sizes that are known. Fix the input size, or "
            "give an adapter layer."
        )
    common = tuple(min(pair) for pair in zip(sizes, targets, strict=True))
    return (
        AveragePool(common, name="pool") if sizes != common else None,
        AveragePool(common, name="pool") if targets != common else None,
    )


def chain(steps: list[keras.Layer | None]) -> keras.Layer | None:
    """Put layers in a row, those that there are.

    Args:
        steps: layers, or None for none.

    Returns:
        A layer that is all of them, or None.

    Example:
        >>> kd.adapters.chain([pool, keras.layers.Dense(64)])
    """
    steps = [step for step in steps if step is not None]
    if len(steps) < 2:
        return steps[0] if steps else None
    row = keras.Sequential(steps, name="adapter")
    # Else the global policy would cast what comes in.
    row.dtype_policy = keras.DTypePolicy("float32")
    return row
