"""What is exported is the student, which takes its own part of the inputs."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd

X = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")


def net(width=5):
    hidden = layers.Dense(width, "relu", name="hidden")
    return keras.Sequential([keras.Input((8,)), hidden, layers.Dense(4)])


DISTILLERS = {
    "one": lambda: kd.Distiller(
        net(), net(9), student_inputs="own", teacher_inputs="t"
    ),
    "self": lambda: kd.SelfDistiller(net(), ["hidden"]),
}


def flat(outputs):
    return [np.asarray(x) for x in keras.tree.flatten(outputs)]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a SavedModel is TensorFlow's"
)
@pytest.mark.parametrize("kind", DISTILLERS)
def test_a_saved_model_is_the_students(kind, tmp_path):
    import tensorflow as tf

    distiller = DISTILLERS[kind]()
    distiller.export(str(tmp_path / "model"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    found = flat(loaded.serve(X))
    expected = flat(distiller.student.predict(X, verbose=0))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None
    or importlib.util.find_spec("onnx") is None,
    reason="needs onnx and onnxruntime",
)
def test_an_onnx_file_is_the_students(tmp_path):
    import onnxruntime

    distiller = DISTILLERS["one"]()
    path = str(tmp_path / "model.onnx")
    try:
        distiller.export(path, format="onnx", verbose=False)
    except ImportError as error:
        pytest.skip(str(error))
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: X})
    np.testing.assert_allclose(
        found, distiller.student.predict(X, verbose=0), atol=1e-5
    )
