"""The step against NumPy: every part of the total, and the update it makes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import with_kernel as linear

RATE, T, ALPHA, BETA = 0.1, 3.0, 0.3, 0.7


def numpy_run(kernel, teacher_kernel, batches, weights=None):
    """Train a linear student by the formulas of the gradients, in float64."""
    logs = []
    for i, (x, y) in enumerate(batches):
        w = np.ones(len(x)) if weights is None else weights[i]
        z_s, z_t = x @ kernel, x @ teacher_kernel
        p, p_s, p_t = softmax(z_s), softmax(z_s / T), softmax(z_t / T)
        one_hot = np.eye(p.shape[-1])[y]
        label = -np.log(p[np.arange(len(y)), y])
        soft = T**2 * (p_t * (np.log(p_t) - np.log(p_s))).sum(-1)
        logs.append([np.mean(w * label), np.mean(w * soft)])
        slope = ALPHA * (p - one_hot) + BETA * T * (p_s - p_t)
        kernel = kernel - RATE * x.T @ (w[:, None] * slope) / len(x)
    label, soft = np.mean(logs, axis=0)
    parts = {"label_loss": label, "soft_target": soft}
    return kernel, {**parts, "loss": ALPHA * label + BETA * soft}


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(64, 5))
    y = rng.integers(0, 4, 64)
    kernels = rng.normal(size=(2, 5, 4))
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)]
    return x.astype("float32"), y, kernels, batches


def distil(kernels, **compile_arguments):
    distiller = kd.Distiller(
        linear(kernels[0], "student"),
        linear(kernels[1], "teacher"),
        terms=[kd.Term(kd.losses.SoftTarget(T), weight=BETA)],
        label_weight=ALPHA,
    )
    arguments = {"optimizer": keras.optimizers.SGD(RATE), **compile_arguments}
    distiller.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **arguments
    )
    return distiller


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"run_eagerly": True},
        {"jit_compile": True},
        {"steps_per_execution": 4},
        {"steps_per_execution": 3, "jit_compile": True},
    ],
    ids=str,
)
def test_update_and_logs_are_numpys(problem, how):
    x, y, kernels, batches = problem
    distiller = distil(kernels, **how)
    logs = distiller.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    kernel, expected = numpy_run(*kernels, batches)
    np.testing.assert_allclose(distiller.student.get_weights()[0], kernel, atol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name][0], value, rtol=1e-5)


def test_two_replicas_are_one_on_the_global_batch(problem, two_replicas):
    x, y, kernels, batches = problem
    with two_replicas.scope():
        distiller = distil(kernels)
    logs = distiller.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    kernel, expected = numpy_run(*kernels, batches)
    np.testing.assert_allclose(distiller.student.get_weights()[0], kernel, atol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name][0], value, rtol=1e-5)


def test_accumulated_gradients_make_one_update_of_the_whole(problem):
    x, y, kernels, _ = problem
    optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=4)
    distiller = distil(kernels, optimizer=optimizer)
    logs = distiller.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    kernel, expected = numpy_run(*kernels, [(x.astype("float64"), y)])
    np.testing.assert_allclose(distiller.student.get_weights()[0], kernel, atol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name][0], value, rtol=1e-5)


def test_sample_weight_counts_in_every_part(problem):
    x, y, kernels, batches = problem
    weight = np.linspace(0, 2, 64)
    distiller = distil(kernels)
    logs = distiller.fit(
        x, y, sample_weight=weight, batch_size=16, shuffle=False, verbose=0
    ).history
    kernel, expected = numpy_run(*kernels, batches, weight.reshape(4, 16))
    np.testing.assert_allclose(distiller.student.get_weights()[0], kernel, atol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name][0], value, rtol=1e-5)


def test_class_weight_counts_in_every_part(problem):
    x, y, kernels, batches = problem
    of_class = {0: 0.5, 1: 1.0, 2: 2.0, 3: 3.0}
    weight = np.array([of_class[label] for label in y]).reshape(4, 16)
    distiller = distil(kernels)
    distiller.fit(x, y, class_weight=of_class, batch_size=16, shuffle=False, verbose=0)
    kernel, _ = numpy_run(*kernels, batches, weight)
    np.testing.assert_allclose(distiller.student.get_weights()[0], kernel, atol=1e-5)


def test_evaluate_and_predict_are_the_students_alone(problem):
    x, y, kernels, _ = problem
    distiller = distil(kernels, metrics=["accuracy"])
    student = linear(kernels[0], "alone")
    student.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    logs = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert logs == pytest.approx(student.evaluate(x, y, verbose=0, return_dict=True))
    np.testing.assert_allclose(
        distiller.predict(x, verbose=0), student.predict(x, verbose=0)
    )


@keras.saving.register_keras_serializable(package="tests")
class Counter(keras.layers.Layer):
    """Pass on, and count how often that really runs."""

    def build(self, shape):
        self.runs = tf.Variable(0, trainable=False)

    def call(self, inputs):
        self.runs.assign_add(1)
        return inputs


def counted(model):
    counter = Counter()
    inputs = keras.Input(model.input_shape[1:])
    counting = keras.Model(inputs, model(counter(inputs)), name=f"{model.name}_counted")
    return counting, counter


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}], ids=str)
def test_a_step_runs_each_net_once(nets, images, cross_entropy, how):
    (student, ran), (teacher, taught) = (counted(net) for net in nets)
    layer = {"student": "student/stack2", "teacher": "teacher/stack2"}
    pair = {net: (f"{net}/stack1", f"{net}/stack2") for net in ("student", "teacher")}
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[
            kd.Term(kd.losses.SoftTarget()),
            kd.Term(kd.losses.Hint(), **layer),
            kd.Term(kd.losses.AttentionMap(), **layer),
            kd.Term(kd.losses.FlowMatrix(), **pair),
        ],
    )
    distiller.compile("sgd", cross_entropy, **how)
    distiller.train_on_batch(*images)
    # The first batch is looked at once, and not by a step.
    distiller.check_fit(images)
    ran.runs.assign(0), taught.runs.assign(0)
    distiller.fit(*images, batch_size=8, epochs=1, verbose=0)
    assert (int(ran.runs), int(taught.runs)) == (4, 4)
    distiller.evaluate(*images, batch_size=8, verbose=0)
    distiller.predict(images[0], batch_size=8, verbose=0)
    assert (int(ran.runs), int(taught.runs)) == (12, 4)


def test_evaluate_moves_no_statistic(nets, images, cross_entropy, three_taps):
    distiller = kd.Distiller(*nets, terms=three_taps)
    distiller.compile("sgd", cross_entropy)
    distiller.fit(*images, verbose=0)
    before = [np.array(v) for v in distiller.student.variables]
    distiller.evaluate(*images, verbose=0)
    for old, new in zip(before, distiller.student.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_teacher_is_left_as_it_was(nets, images, cross_entropy, three_taps):
    student, teacher = nets
    before = [np.array(v) for v in teacher.variables]
    distiller = kd.Distiller(student, teacher, terms=three_taps)
    distiller.compile("adam", cross_entropy)
    distiller.fit(*images, verbose=0)
    for old, new in zip(before, teacher.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert teacher.trainable and all(layer.trainable for layer in teacher.layers)
    assert "call" not in teacher.get_layer("stack2").__dict__
    own = {id(v) for v in distiller.variables}
    assert not own & {id(v) for v in teacher.variables}


def test_adapters_train_and_stay_out_of_the_student(nets, images, cross_entropy):
    student, teacher = nets
    hint = kd.Term(kd.losses.Hint(), student="stack1", teacher="stack2", weight=1.0)
    distiller = kd.Distiller(student, teacher, terms=[hint], label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.01), cross_entropy)
    adapter = distiller.terms["hint"].student_adapters[0]
    before = [np.array(v) for v in adapter.trainable_variables]
    assert len(before) == 2
    history = distiller.fit(*images, epochs=30, verbose=0).history["hint"]
    assert history[-1] < 0.7 * history[0]
    for old, new in zip(before, adapter.trainable_variables, strict=True):
        assert np.abs(old - np.array(new)).max() > 1e-3
    assert len(student.trainable_variables) == 10
    assert len(distiller.trainable_variables) == 12
