"""Linear nets, whose steps have a closed form, and data for them."""

import keras
import numpy as np


def linear(name, inputs=4, classes=3):
    """Create a softmax regression."""
    x = keras.Input((inputs,))
    return keras.Model(x, keras.layers.Dense(classes, name="logits")(x), name=name)


def with_kernel(kernel, name):
    """Create a softmax regression without a bias."""
    inputs = keras.Input((len(kernel),))
    dense = keras.layers.Dense(kernel.shape[1], use_bias=False, name="logits")
    model = keras.Model(inputs, dense(inputs), name=name)
    dense.set_weights([kernel])
    return model


def points(count=12, inputs=4, classes=3):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(count, inputs)).astype("float32")
    return x, rng.integers(0, classes, count).astype("int32")


def weights(model):
    return [np.array(w, "float64") for w in model.get_weights()]
