"""Which tensors are finite, found in one call of the device."""

import keras
from keras import ops


class FiniteCheck:
    """Look for values that are not finite among variables.

    Args:
        variables: those of floats are looked at.
    """

    def __init__(self, variables):
        floats = [keras.backend.is_float_dtype(v.dtype) for v in variables]
        self.floats = [index for index, is_float in enumerate(floats) if is_float]
        self.variables, self.compiled = list(variables), None

    def not_finite(self, values=None) -> list:
        """Return the variables of which some value is not finite.

        Args:
            values: of all variables, where these do not hold them. Default: their own.
        """
        if not self.floats:
            return []
        if values is not None:
            values = [values[index] for index in self.floats]
        finite = ops.convert_to_numpy(self._run(values))
        pairs = zip(self.floats, finite, strict=True)
        return [self.variables[index] for index, good in pairs if not good]

    def _run(self, values):
        backend = keras.backend.backend()
        if backend == "jax":
            import jax

            self.compiled = self.compiled or jax.jit(_finite)
            return self.compiled(self._own() if values is None else values)
        if backend == "tensorflow":
            import tensorflow as tf

            if self.compiled is None:
                self.compiled = tf.function(self._finite_now, autograph=False)
            return self.compiled()
        import torch

        with torch.no_grad():
            return self._finite_now()

    def _finite_now(self):
        return _finite(self._own())

    def _own(self) -> list:
        return [self.variables[index].value for index in self.floats]


def _finite(values):
    """Return which of the tensors are finite."""
    return ops.stack([ops.all(ops.isfinite(x)) for x in values])
