"""Teachers that are functions of arrays, among them models of ONNX and LiteRT."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import linear, points, weights

X, Y = points()
MATRIX = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")


def divergence(teacher, student, temperature=4.0):
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def fit(student, teacher, x=X, rate=0.0, **arguments):
    distiller = kd.Distiller(student, teacher, label_weight=0.0, **arguments)
    distiller.compile(keras.optimizers.SGD(rate))
    return distiller.fit(x, batch_size=12, verbose=0).history


@pytest.mark.parametrize("shapes", [None, (3,)])
def test_a_step_is_that_of_the_functions_prediction(shapes):
    calls = []

    def function(x):
        assert isinstance(x, np.ndarray) and x.dtype == "float32"
        calls.append(len(x))
        return np.float64(x) @ MATRIX

    student = linear("student")
    w, b = weights(student)
    teacher = kd.FunctionTeacher(function, shapes=shapes)
    logs = fit(student, teacher, rate=0.5)
    gap = divergence(X @ MATRIX, X @ w + b).mean()
    assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)
    gradient = 4.0 * (softmax(X @ w + b, 4.0) - softmax(X @ MATRIX, 4.0)) / len(X)
    np.testing.assert_allclose(weights(student)[0], w - 0.5 * X.T @ gradient, atol=1e-6)
    # The first samples' shapes, the look at the first batch, and the step.
    assert calls[-1] == 12 and (2 in calls) == (shapes is None)


@pytest.mark.parametrize("count", [1, 2])
def test_it_is_called_eagerly_too(count):
    names = ["logits", "block"][:count]
    teacher = kd.FunctionTeacher(lambda x: dict.fromkeys(names, x @ MATRIX))
    teacher.adapt(X)
    taps = kd.taps.as_taps(names)
    found = teacher(keras.ops.convert_to_tensor(X), taps)
    for tap in taps:
        array = keras.ops.convert_to_numpy(found[tap])
        np.testing.assert_allclose(array, X @ MATRIX, rtol=1e-6)


def test_several_arrays_of_several_inputs():
    def function(inputs):
        a, b = inputs["a"], inputs["b"]
        return {"logits": (a + b) @ MATRIX, "block/1": (a - b) @ MATRIX}

    student = linear("student")
    hint = kd.Term(kd.losses.Hint(), "logits", "block/1", 1.0, adapter=None)
    terms = [kd.Term(kd.losses.SoftTarget()), hint]
    x = {"a": X, "b": X[::-1].copy()}
    teacher = kd.FunctionTeacher(function)
    student_inputs = {"student_inputs": "a"}
    logs = fit(student, teacher, x, terms=terms, **student_inputs)
    z = student.predict(X, verbose=0)
    gap = divergence((X + X[::-1]) @ MATRIX, z).mean()
    assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)
    squares = (z - (X - X[::-1]) @ MATRIX) ** 2
    assert logs["hint"][0] == pytest.approx(squares.mean() / 2, rel=1e-4)


def onnx_session(model):
    """Return a session of an ONNX model with the weights of a linear one."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    kernel, bias = (w.astype("float32") for w in model.get_weights())
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"])],
        "teacher",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("z", kinds.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(x, n) for n, x in (("w", kernel), ("b", bias))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return runtime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_a_model_of_onnx():
    student, model = linear("student"), linear("teacher")
    session = onnx_session(model)
    teacher = kd.FunctionTeacher(lambda x: session.run(None, {"x": x})[0])
    gap = divergence(*(m.predict(X, verbose=0) for m in (model, student))).mean()
    assert fit(student, teacher)["soft_target"][0] == pytest.approx(gap, rel=1e-4)
    given = session.run(None, {"x": X})[0]
    data = {"x": X, "z": given}
    logs = fit(student, kd.GivenTeacher(logits="z"), data)
    assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)


def lite_function(model, path):
    """Export a model to LiteRT; return the function that runs it."""
    lite = pytest.importorskip("ai_edge_litert.interpreter")
    model.export(path, format="litert", verbose=False)
    interpreter = lite.Interpreter(model_path=str(path))

    def function(x):
        (given,), (result,) = (
            interpreter.get_input_details(),
            interpreter.get_output_details(),
        )
        interpreter.resize_tensor_input(given["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return function


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exported by TensorFlow"
)
def test_a_model_of_litert(tmp_path):
    student, model = linear("student"), linear("teacher")
    function = lite_function(model, tmp_path / "teacher.tflite")
    gap = divergence(*(m.predict(X, verbose=0) for m in (model, student))).mean()
    logs = fit(student, kd.FunctionTeacher(function))
    assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)
    data = {"x": X, "z": function(X)}
    logs = fit(student, kd.GivenTeacher(logits="z"), data)
    assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)


def test_replicas_each_call_it(two_replicas):
    student = linear("student")
    gap = divergence(X @ MATRIX, student.predict(X, verbose=0)).mean()
    rows = []

    def function(x):
        rows.append(len(x))
        return x @ MATRIX

    with two_replicas.scope():
        copy = linear("student")
        copy.set_weights(student.get_weights())
        teacher = kd.FunctionTeacher(function, shapes=(3,))
        distiller = kd.Distiller(copy, teacher, label_weight=0.0)
        distiller.compile(keras.optimizers.SGD(0.0))
    logs = distiller.fit(X, batch_size=12, verbose=0).history
    assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)
    assert rows[-2:] == [6, 6]


def test_a_cache_calls_it_once_a_sample(tmp_path):
    samples = kd.data.Samples(X.reshape(12, 2, 2, 1), np.zeros(12, "int64"))

    def function(x):
        return x.reshape(len(x), 4) @ MATRIX

    with pytest.raises(ValueError, match="can't tell one FunctionTeacher"):
        kd.CachedTeacher(tmp_path, kd.FunctionTeacher(function)).build(samples)
    teacher = kd.FunctionTeacher(function, key="first")
    cached = kd.CachedTeacher(tmp_path, teacher, dtype="float32")
    cached.build(samples, verbose=0)
    found = cached.read(samples.ids)["logits"]["all"]
    np.testing.assert_allclose(found, X @ MATRIX, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="not built with this teacher"):
        other = kd.FunctionTeacher(function, key="second")
        kd.CachedTeacher(tmp_path, other, dtype="float32")


def test_what_it_does_not_return_is_refused():
    with pytest.raises(TypeError, match="got str"):
        kd.FunctionTeacher("model.onnx")
    term = kd.Term(kd.losses.Hint(), "logits", "stack2")
    teacher = kd.FunctionTeacher(lambda x: x @ MATRIX, shapes=(3,))
    with pytest.raises(ValueError, match=r"returns \['logits'\], .* taps \['stack2'\]"):
        fit(linear("student"), teacher, terms=[term])
    teacher = kd.FunctionTeacher(lambda x: x @ MATRIX)
    with pytest.raises(ValueError, match=r"returns \['logits'\]; 'stack2' is tapped"):
        fit(linear("student"), teacher, terms=[term])
    with pytest.raises(ValueError, match="class counts differ"):
        fit(linear("student"), kd.FunctionTeacher(lambda x: x @ MATRIX[:, :2]))
    teacher = kd.FunctionTeacher(lambda x: (x @ MATRIX)[:2])
    with pytest.raises(Exception, match=r"shapes \[\(2, 3\)\] .* \[\(12, 3\)\]"):
        fit(linear("student"), teacher)
