"""Products in which 0 times infinity is 0, at the price of a product."""

import keras
from keras import ops


def product(probabilities, values):
    """Return `p x`, 0 where p is 0, whatever x is; differentiable by x.

    TensorFlow has an operation for it, where a selection would cost as much again.

    Args:
        probabilities: p, which no gradient is taken by.
        values: x, which may be infinite or NaN where p is 0.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.math.multiply_no_nan(values, probabilities)
    return probabilities * ops.where(probabilities > 0, values, 0.0)
