"""Linear nets, whose steps have a closed form, and data for them."""

import keras
import numpy as np


def linear(name, inputs=4, classes=3):
    """Create a softmax regression."""
    x = keras.Input((inputs,))
    return keras.Model(x, keras.layers.Dense(classes, name="logits")(x), name=name)


def points(count=12, inputs=4, classes=3):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(count, inputs)).astype("float32")
    return x, rng.integers(0, classes, count).astype("int32")


def weights(model):
    return [np.array(w, "float64") for w in model.get_weights()]
