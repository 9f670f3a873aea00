"""Models run on shapes alone."""

import keras

# Tried in turn where a model does not take a size that is unknown.
_SIZES = 128, 32, 8, 2


def input_of(model: keras.Model):
    """Return the inputs of a model that declares them, by name if several, else None."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    return inputs[0] if len(inputs) == 1 else {x.name: x for x in inputs}


def declares_sizes(model: keras.Model) -> bool:
    """Whether a model declares its inputs, with all sizes but that of the batch."""
    inputs = getattr(model, "inputs", None)
    return bool(inputs) and not any(None in x.shape[1:] for x in inputs)


def trace(function, inputs):
    """Run a function on shapes alone: nothing is computed, no state changes.

    Args:
        function: from tensors to a structure of tensors.
        inputs: a structure of `keras.KerasTensor`, or of tensors. A model that does not
            take an unknown size is run with a size that it takes.

    Returns:
        The structure of `keras.KerasTensor` that the function returns.
    """
    specs = keras.tree.map_structure(_spec, inputs)
    try:
        return _trace(function, specs)
    except Exception:
        # On JAX and torch, Keras runs with large sizes in place of unknown ones.
        if all(None not in x.shape[1:] for x in keras.tree.flatten(specs)):
            raise
        for size in _SIZES:
            try:
                return _trace(function, with_size(specs, size))
            except Exception:
                continue
        raise


def trace_as_declared(function, inputs):
    """Run a function on shapes alone, as `trace` does, with unknown sizes as they are."""
    return _trace(function, keras.tree.map_structure(_spec, inputs))


def with_size(specs, size: int):
    """Return specs with a size in place of each that is unknown, except the batch's."""

    def known(x):
        sizes = (size if n is None else n for n in x.shape[1:])
        return keras.KerasTensor((None, *sizes), x.dtype)

    return keras.tree.map_structure(known, specs)


def _spec(x):
    dtype = keras.backend.standardize_dtype(x.dtype)
    return keras.KerasTensor((None, *x.shape[1:]), dtype)


def _trace(function, specs):
    traced = _Traced(function)
    try:
        return traced(specs)
    except ValueError as error:
        # Keras rewords what was raised inside as an error of the layer.
        raise traced.error or error from None


class _Traced(keras.Layer):
    """The call of a layer on KerasTensors is Keras's public way to a symbolic run."""

    def __init__(self, function):
        super().__init__(name="trace", dtype="float32", autocast=False)
        self.function = function
        self.error = None

    def call(self, inputs):
        try:
            return self.function(inputs)
        except ValueError as error:
            self.error = error
            raise
