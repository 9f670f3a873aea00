"""A teacher that is a function of NumPy arrays."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_distill._backend.host_calls import (
    call_on_host,
    compiles_with_xla,
    takes_unknown_sizes,
)
from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import BaseTeacher, Request, check_known


class FunctionTeacher(BaseTeacher):
    """A teacher that is any function from a batch to arrays.

    It may run a model of ONNX, LiteRT or another framework, or ask an API. The function
    is called once a step, on the host, with NumPy arrays; its results are cast to
    float32. Where it is slow, a `kd.CachedTeacher` calls it once for each sample. Arrays
    have no mask: padding counts if the student's tensor has none either, and is left out
    by the `mask` of a `kd.Term`, as in `kd.Term(loss, mask=lambda x: x != 0)`.

    Args:
        function: from what `teacher_inputs` selects, in NumPy arrays, batch first, to one
            array, the logits `(B, K)`, or to a dict of arrays by the names that terms
            tap, `"logits"` among them.
        shapes: of what it returns, without the batch: one shape, or a dict. A size that
            varies between batches is None, which JAX does not take. Default: as found by
            a call on the first two samples, before the first step.
        key: a name for this version of the function, by which a `kd.CachedTeacher` tells
            it from others. Default: none, and no cache is built of it.

    Raises:
        TypeError: `function` can't be called.
        ValueError: a size is None on JAX; in a distiller, a term taps what it does not
            return; in training, it returns arrays of other shapes.

    Example:
        >>> session = onnxruntime.InferenceSession("teacher.onnx")
        >>> teacher = kd.FunctionTeacher(lambda x: session.run(None, {"x": x})[0])
        >>> distiller = kd.Distiller(student, teacher)
    """

    adapts_to_data = True
    supports_jit = property(lambda self: compiles_with_xla())

    def __init__(
        self,
        function: Callable,
        *,
        shapes: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        key: str | None = None,
    ):
        super().__init__()
        if not callable(function):
            raise TypeError(
                "kd.FunctionTeacher takes a function from a batch of NumPy arrays to "
                f"arrays; got {type(function).__name__}."
            )
        self.function, self.key = function, key
        self.tap_shapes = None
        if shapes is not None:
            named = _by_tap(shapes)
            self.tap_shapes = {tap: tuple(shape) for tap, shape in named.items()}
            _check_sizes(self.tap_shapes)

    def __call__(self, inputs, taps: Iterable[Tap], scores=None) -> dict[Tap, object]:
        """Call the function; return the arrays of the taps."""
        taps = tuple(taps)
        if not taps:
            return {}
        shapes = [self._shape(tap) for tap in taps]

        def run(teacher, arrays):
            return teacher._arrays(arrays, taps)

        tensors = call_on_host(self, run, inputs, shapes)
        return {
            tap: ops.stop_gradient(tensor)
            for tap, tensor in zip(taps, tensors, strict=True)
        }

    def shapes(self, inputs, taps: Sequence[Tap]) -> dict[str, list]:
        """Return the shape of each tap, batch first, by the tap's text."""
        if not any(
            isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(inputs)
        ):
            self.adapt(inputs)
        return {str(tap): [None, *self._shape(tap)] for tap in taps}

    def check(self, requests: Sequence[Request]) -> None:
        """Check that terms tap what the function returns, as far as that is known."""
        super().check(requests)
        if self.tap_shapes is not None:
            check_known(requests, self.tap_shapes, "The function returns")

    def adapt(self, inputs) -> None:
        """Find what the function returns from its first samples."""
        if self.tap_shapes is None:
            arrays = keras.tree.map_structure(ops.convert_to_numpy, inputs)
            found = _by_tap(self.function(arrays))
            self.tap_shapes = {tap: np.shape(x)[1:] for tap, x in found.items()}

    def _shape(self, tap: Tap) -> tuple:
        if self.tap_shapes is None or tap not in self.tap_shapes:
            known = [str(tap) for tap in self.tap_shapes or ()]
            raise ValueError(
                f"The function returns {known or 'nothing that is known yet'}; '{tap}' is "
                "tapped. Tap one of these, or return it by that name; pass shapes= where "
                "no batch can be read before the first step."
            )
        return self.tap_shapes[tap]

    def _arrays(self, inputs, taps: Sequence[Tap]) -> list:
        """Return the arrays of the taps, after a check of their shapes."""
        rows = len(keras.tree.flatten(inputs)[0])
        found = _by_tap(self.function(inputs))
        arrays = [np.asarray(found[tap], "float32") for tap in taps if tap in found]
        shapes = [(rows, *self._shape(tap)) for tap in taps]
        if not _fit([x.shape for x in arrays], shapes):
            raise ValueError(
                f"The function of kd.FunctionTeacher returned arrays of the shapes "
                f"{[x.shape for x in arrays]} for {list(map(str, taps))}; expected "
                f"{shapes}, as before. Pass shapes= with None for a size that varies."
            )
        return arrays


def _fit(found: Sequence[tuple], expected: Sequence[tuple]) -> bool:
    """Whether shapes are those expected, where None is any size."""
    return len(found) == len(expected) and all(
        len(x) == len(y) and all(n in (m, None) for m, n in zip(x, y, strict=True))
        for x, y in zip(found, expected, strict=True)
    )


def _check_sizes(shapes: Mapping[Tap, tuple]) -> None:
    """Check that the backend takes the sizes of what a function returns."""
    unknown = [str(tap) for tap, shape in shapes.items() if None in shape]
    if unknown and not takes_unknown_sizes():
        raise ValueError(
            f"The shapes of {unknown} in kd.FunctionTeacher have a size of None, and a "
            "function called from a step of JAX returns known sizes. Pad the data to one "
            "length and pass it, or use TensorFlow or torch."
        )


def _by_tap(found) -> dict:
    """Return what a function returns by taps: a single one is the logits."""
    if not isinstance(found, Mapping):
        found = {"logits": found}
    return {Tap(name): value for name, value in found.items()}
