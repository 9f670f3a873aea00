"""Adapters: the trainable parts that make a student's tensor fit the teacher's.

An adapter is an ordinary Keras layer on the student's side of a term, trained and
saved with the distiller and left out of the student. Only pooling, which has no
weights, may also stand on the teacher's side.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_distill")
class ValidConvolution(layers.Layer):
    """FitNets' convolutional regressor: from a larger map to a smaller, wider one.

    A convolution without padding whose kernel is as large as the difference in size
    asks for, `k = H_s - H_t + 1` by `W_s - W_t + 1`, and gives the teacher's channels.
    It has fewer weights than a dense regressor and keeps places in place.

    Args:
        target_shape: the teacher's `(B, H, W, C)`. Default: filled in by the term.
        activation: of the result. Default: none.

    Raises:
        ValueError: the student's map is smaller than the teacher's.

    Example:
        >>> kd.Term(kd.losses.Hint(), "stack2", "stack3",
        ...         adapter=kd.adapters.ValidConvolution())

    Source:
        Romero et al. 2015, FitNets: hints for thin deep nets.
    """

    def __init__(self, target_shape: Shape | None = None, *, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape) if target_shape else None
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Shape):
        """Make the convolution from both shapes."""
        if self.target_shape is None:
            raise ValueError(
                "ValidConvolution needs target_shape, the teacher's shape."
            )
        (rows, columns), (target_rows, target_columns) = (
            shape[1:3] for shape in (input_shape, self.target_shape)
        )
        if rows < target_rows or columns < target_columns:
            raise ValueError(
                f"ValidConvolution shrinks a map; the student's {input_shape} is "
                f"smaller than the teacher's {self.target_shape}. Tap an earlier "
                "layer of the student, or use adapter='auto'."
            )
        kernel = (rows - target_rows + 1, columns - target_columns + 1)
        self.convolution = layers.Conv2D(
            self.target_shape[-1], kernel, dtype=self.dtype_policy, name="convolution"
        )
        self.convolution.build(input_shape)

    def call(self, inputs):
        """Regress `(B, H_s, W_s, C_s)` to `(B, H_t, W_t, C_t)`."""
        return self.activation(self.convolution(inputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the teacher's shape."""
        return (input_shape[0], *self.target_shape[1:])

    def get_config(self) -> dict:
        """Give the arguments."""
        activation = keras.activations.serialize(self.activation)
        config = {"target_shape": self.target_shape, "activation": activation}
        return {**super().get_config(), **config}


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


@keras.saving.register_keras_serializable(package="keras_distill")
class AveragePool(layers.Layer):
    """Average a map or a sequence over windows that fill it, down to any size.

    Place `i` of `n` averages the places from `floor(i N / n)` to `ceil((i + 1) N / n)`
    of `N`, axis by axis. Keras's own adaptive pooling fails in a trace when a target is
    one pixel and the size is even (3.15.1).

    Args:
        size: target of each spatial axis.

    Example:
        >>> kd.adapters.AveragePool((4, 4))(maps)
    """

    def __init__(self, size: tuple[int, ...], **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.size = tuple(size)

    def call(self, inputs):
        """Pool `(B, H, W, C)` to `(B, h, w, C)`, `(B, L, D)` to `(B, l, D)`."""
        for axis, target in enumerate(self.size, start=1):
            if inputs.shape[axis] != target:
                windows = ops.convert_to_tensor(_windows(inputs.shape[axis], target))
                windows = ops.cast(windows, inputs.dtype)
                pooled = ops.tensordot(inputs, windows, axes=[[axis], [0]])
                inputs = ops.moveaxis(pooled, -1, axis)
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Give the target size between batch and channels."""
        return (input_shape[0], *self.size, input_shape[-1])

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "size": self.size}


def _windows(size: int, target: int) -> np.ndarray:
    """Give the averaging matrix, `(size, target)`."""
    matrix = np.zeros((size, target), "float32")
    for place in range(target):
        start, stop = place * size // target, -(-(place + 1) * size // target)
        matrix[start:stop, place] = 1 / (stop - start)
    return matrix


def chain(steps: list[keras.Layer | None]) -> keras.Layer | None:
    """Put layers in a row, those that there are."""
    steps = [step for step in steps if step is not None]
    if len(steps) < 2:
        return steps[0] if steps else None
    row = keras.Sequential(steps, name="adapter")
    # Else the global policy would cast what comes in.
    row.dtype_policy = keras.DTypePolicy("float32")
    return row
