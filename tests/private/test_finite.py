"""Which variables are not finite, by one call of the device."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_distill._backend.finite import FiniteCheck


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_variables_that_are_not_are_found(dtype, bad):
    variables = [keras.Variable(np.ones(shape), dtype=dtype) for shape in ((), (2, 3))]
    variables.insert(1, keras.Variable(np.ones(2, "int32"), dtype="int32"))
    check = FiniteCheck(variables)
    assert check.not_finite() == []
    variables[2].assign(np.array([[1, bad, 3], [4, 5, 6]]))
    assert [v is variables[2] for v in check.not_finite()] == [True]
    values = [ops.convert_to_tensor(v) for v in variables]
    values[0], values[2] = values[0] * bad, ops.ones((2, 3))
    if keras.backend.backend() == "jax":
        # The variables of a step on JAX do not hold its values.
        assert [v is variables[0] for v in check.not_finite(values)] == [True]


def test_no_variables():
    assert FiniteCheck([]).not_finite() == []
