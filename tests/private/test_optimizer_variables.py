"""The index of a variable, as an optimizer's momenta have it, and copies of optimizers."""

import keras
import numpy as np
import pytest

from keras_distill._backend.optimizer_variables import copied_optimizer, index_of


def test_the_index_is_that_of_the_momentum():
    variables = [keras.Variable(np.zeros(n, "float32")) for n in (2, 3)]
    optimizer = keras.optimizers.SGD(momentum=0.5)
    optimizer.build(variables)
    found = [index_of(optimizer, variable) for variable in variables]
    assert [optimizer.momentums[i].shape for i in found] == [(2,), (3,)]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("by", ["var_names", "var_list"])
def test_a_copy_excludes_the_same_variables_from_weight_decay(by, scaled):
    kernel, bias = variables = [
        keras.Variable(np.ones(2, "float32"), name=name) for name in ("kernel", "bias")
    ]
    optimizer = keras.optimizers.SGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(
        **{by: ["bias"] if by == "var_names" else [bias]}
    )
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    copy = copied_optimizer(optimizer)
    copy.build(variables)
    copy.apply([keras.ops.zeros(2), keras.ops.zeros(2)])
    np.testing.assert_array_equal(kernel, [0.75, 0.75])
    np.testing.assert_array_equal(bias, [1.0, 1.0])


def test_a_copy_has_the_learning_rate_of_a_function():
    variable = keras.Variable(np.ones(2, "float32"))
    copy = copied_optimizer(keras.optimizers.SGD(lambda: 0.25))
    copy.build([variable])
    copy.apply([keras.ops.ones(2)])
    np.testing.assert_array_equal(variable, [0.75, 0.75])
