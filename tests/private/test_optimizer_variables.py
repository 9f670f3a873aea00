"""The index of a variable, as an optimizer's momenta have it."""

import keras
import numpy as np

from keras_distill._backend.optimizer_variables import index_of


def test_the_index_is_that_of_the_momentum():
    variables = [keras.Variable(np.zeros(n, "float32")) for n in (2, 3)]
    optimizer = keras.optimizers.SGD(momentum=0.5)
    optimizer.build(variables)
    found = [index_of(optimizer, variable) for variable in variables]
    assert [optimizer.momentums[i].shape for i in found] == [(2,), (3,)]
