"""Models run on shapes alone."""

import keras


def input_of(model: keras.Model):
    """Return the inputs of a model that declares them, by name if several, else None."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    return inputs[0] if len(inputs) == 1 else {x.name: x for x in inputs}


def trace(function, inputs):
    """Run a function on shapes alone: nothing is computed, no state changes.

    Args:
        function: from tensors to a structure of tensors.
        inputs: a structure of `keras.KerasTensor`, or of tensors.

    Returns:
        The structure of `keras.KerasTensor` that the function returns.
    """

    def spec(x):
        dtype = keras.backend.standardize_dtype(x.dtype)
        return keras.KerasTensor((None, *x.shape[1:]), dtype)

    traced = _Traced(function)
    try:
        return traced(keras.tree.map_structure(spec, inputs))
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
