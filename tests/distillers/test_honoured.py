"""What a distiller must not drop: regularisation, masks, precision, inputs, outputs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from tests.nets import conv_pair


@keras.saving.register_keras_serializable(package="tests")
class AddConstant(layers.Layer):
    """Add a loss that is the same in each step."""

    def call(self, inputs):
        self.add_loss(ops.convert_to_tensor(0.25))
        return inputs


def classifier(name, **dense):
    inputs = keras.Input((4,))
    x = AddConstant()(inputs) if dense else inputs
    return keras.Model(inputs, layers.Dense(3, name="logits", **dense)(x), name=name)


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 4)).astype("float32")
    return x, rng.integers(0, 3, 16)


@pytest.mark.parametrize("label_weight", [0.0, 0.1, 1.0])
def test_regularisation_once_and_at_full_strength(vectors, cross_entropy, label_weight):
    student = classifier("student", kernel_regularizer=keras.regularizers.L2(0.1))
    kernel = np.array(student.get_layer("logits").kernel, "float64")
    penalty = 0.1 * (kernel**2).sum() + 0.25
    distiller = kd.Distiller(student, classifier("teacher"), label_weight=label_weight)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy)
    logs = {k: v[0] for k, v in distiller.fit(*vectors, verbose=0).history.items()}
    parts = label_weight * logs["label_loss"] + logs["soft_target"]
    assert logs["loss"] == pytest.approx(parts + penalty, rel=1e-5)
    logits = vectors[0] @ kernel
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    label_loss = -log_p[np.arange(16), vectors[1]].mean()
    assert logs["label_loss"] == pytest.approx(label_loss, rel=1e-4)


def test_regularisation_alone_moves_weights_at_label_weight_zero(vectors):
    student = classifier("student", kernel_regularizer=keras.regularizers.L2(0.1))
    before = np.array(student.get_layer("logits").kernel)
    term = kd.Term(kd.losses.SoftTarget(), weight=0.0)
    distiller = kd.Distiller(
        student, classifier("teacher"), terms=[term], label_weight=0.0
    )
    distiller.compile(keras.optimizers.SGD(0.5))
    distiller.train_on_batch(vectors[0])
    after = np.array(student.get_layer("logits").kernel)
    # d(0.1 ||W||^2) = 0.2 W, at rate 0.5.
    np.testing.assert_allclose(after, before * 0.9, atol=1e-6)


def test_penalty_of_an_adapter_trains_it_and_stays_out_of_evaluate(images):
    student, teacher = conv_pair()
    regularizer = keras.regularizers.L2(0.1)
    adapter = layers.Conv2D(6, 1, kernel_regularizer=regularizer)
    hint = kd.Term(
        kd.losses.Hint(), "stack1", "stack1", weight=0.0, adapter=adapter, name="hint"
    )
    distiller = kd.Distiller(student, teacher, terms=[hint])
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.5), cross_entropy)
    student.compile(loss=cross_entropy)
    found = distiller.evaluate(*images, verbose=0)
    assert found == pytest.approx(student.evaluate(*images, verbose=0), rel=1e-6)
    adapter = distiller.terms["hint"].student_adapters[0]
    before = np.array(adapter.kernel)
    logs = distiller.train_on_batch(*images, return_dict=True)
    penalty = 0.1 * (before.astype("float64") ** 2).sum()
    assert logs["loss"] == pytest.approx(logs["label_loss"] + penalty, rel=1e-5)
    np.testing.assert_allclose(np.array(adapter.kernel), before * 0.9, atol=1e-6)


def test_masked_tokens_count_nowhere(cross_entropy):
    def tagger(name, width):
        inputs = keras.Input((None,), dtype="int32")
        x = layers.Embedding(10, width, mask_zero=True, name="embedding")(inputs)
        return keras.Model(inputs, layers.Dense(5, name="logits")(x), name=name)

    teacher, student = tagger("teacher", 6), tagger("student", 4)
    terms = [
        kd.Term(kd.losses.SoftTarget(2.0)),
        kd.Term(kd.losses.Hint(), student="embedding", teacher="embedding"),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy)
    tokens = np.array([[3, 4, 5, 0], [7, 0, 0, 0]])
    labels = np.array([[1, 2, 3, 0], [4, 0, 0, 0]])
    logs = distiller.train_on_batch(tokens, labels, return_dict=True)

    adapter = distiller.terms["hint"].student_adapters[0]
    seen, known = (
        np.array(m.get_layer("embedding").embeddings) for m in (student, teacher)
    )
    seen = seen @ np.array(adapter.kernel) + np.array(adapter.bias)
    valid = tokens[tokens > 0]
    hint = (0.5 * (seen[valid] - known[valid]) ** 2).mean(-1).mean()
    assert logs["hint"] == pytest.approx(hint, rel=1e-4)
    z_s, z_t = (
        ops.convert_to_numpy(m(tokens)).astype("float64")[tokens > 0] / 2
        for m in (student, teacher)
    )
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (z_t, z_s))
    soft = 4 * (p * np.log(p / q)).sum(-1).mean()
    assert logs["soft_target"] == pytest.approx(soft, rel=1e-3)


def test_half_precision_student_of_a_float32_teacher(images, cross_entropy, three_taps):
    from tests.nets import conv_pair

    keras.utils.set_random_seed(2)
    full = conv_pair()[1]
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        keras.utils.set_random_seed(3)
        student = conv_pair()[0]
        distiller = kd.Distiller(student, full, terms=three_taps)
        distiller.compile(keras.optimizers.SGD(0.01), cross_entropy)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    output = ops.convert_to_numpy(student(images[0][:1]))
    assert output.dtype == "float16" and full.dtype == "float32"
    before = [np.array(v) for v in student.trainable_variables]
    logs = distiller.fit(*images, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in logs.values())
    moved = [
        np.abs(a - np.array(b)).max()
        for a, b in zip(before, student.trainable_variables, strict=True)
    ]
    assert min(moved) > 0
    # The same in float32, from the same weights, comes to nearly the same parts.
    twin = conv_pair()[0]
    for own, other in zip(
        twin.variables, before_and_state(student, before), strict=True
    ):
        own.assign(other)
    again = kd.Distiller(
        twin, full, terms=[kd.Term(kd.losses.SoftTarget(4.0), weight=0.9)]
    )
    again.compile(keras.optimizers.SGD(0.0), cross_entropy)
    reference = again.train_on_batch(*images, return_dict=True)
    assert logs["soft_target"][0] == pytest.approx(reference["soft_target"], rel=2e-2)


def before_and_state(model, trainable):
    """Give a model's variables with the trainable ones as they were, fresh statistics."""
    values = iter(trainable)
    for variable in model.variables:
        if variable.trainable:
            yield next(values)
        else:
            yield (
                np.ones(variable.shape)
                if "variance" in variable.path
                else 0 * np.array(variable)
            )


def test_another_resolution_for_the_student(cross_entropy):
    def net(size, name):
        inputs = keras.Input((size, size, 1))
        x = layers.Conv2D(4, 3, padding="same", name="stack1")(inputs)
        x = layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, layers.Dense(3)(x), name=name)

    x = np.random.default_rng(0).normal(size=(8, 12, 12, 1)).astype("float32")
    y = np.arange(8) % 3
    student, teacher = net(6, "student"), net(12, "teacher")
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(kd.losses.Hint(), "stack1", "stack1")],
        student_inputs=layers.Resizing(6, 6),
    )
    distiller.compile("sgd", cross_entropy)
    distiller.fit(x, y, verbose=0)
    small = ops.convert_to_numpy(layers.Resizing(6, 6)(x))
    np.testing.assert_allclose(
        distiller.predict(x, verbose=0), student.predict(small, verbose=0), atol=1e-6
    )


def test_another_modality_out_of_one_batch(cross_entropy):
    rng = np.random.default_rng(0)
    x = {
        "colour": rng.normal(size=(8, 4)).astype("float32"),
        "depth": rng.normal(size=(8, 6)).astype("float32"),
    }
    y = np.arange(8) % 3
    teacher = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="teacher")
    student = keras.Sequential([keras.Input((6,)), layers.Dense(3)], name="student")
    distiller = kd.Distiller(
        student, teacher, student_inputs="depth", teacher_inputs="colour"
    )
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    loss = kd.losses.SoftTarget()
    expected = loss(teacher(x["colour"]), student(x["depth"]))
    assert logs["soft_target"] == pytest.approx(float(expected), rel=1e-5)


def test_several_outputs_with_a_loss_each():
    def net(name):
        inputs = keras.Input((4,))
        outputs = {
            "kind": layers.Dense(3, name="kind")(inputs),
            "size": layers.Dense(1, name="size")(inputs),
        }
        return keras.Model(inputs, outputs, name=name)

    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    y = {"kind": np.arange(8) % 3, "size": np.arange(8.0)[:, None]}
    soft = kd.Term(kd.losses.SoftTarget(), student="logits/kind", teacher="logits/kind")
    distiller = kd.Distiller(net("student"), net("teacher"), terms=[soft])
    distiller.compile(
        keras.optimizers.SGD(0.0),
        loss={
            "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "size": keras.losses.MeanSquaredError(),
        },
    )
    logs = {k: v[0] for k, v in distiller.fit(x, y, verbose=0).history.items()}
    assert logs["label_loss"] == pytest.approx(logs["kind_loss"] + logs["size_loss"])
    assert logs["loss"] == pytest.approx(
        logs["label_loss"] + logs["soft_target"], rel=1e-5
    )
    with pytest.raises(ValueError, match=r"several outputs.*logits/kind"):
        kd.Distiller(net("student"), net("teacher"))


def test_weights_of_several_outputs_reach_the_term_of_that_output():
    def net(name):
        inputs = keras.Input((4,))
        outputs = {k: layers.Dense(3, name=k)(inputs) for k in ("a", "b")}
        return keras.Model(inputs, outputs, name=name)

    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    y = {"a": np.arange(8) % 3, "b": np.arange(8) % 3}
    weight = {"a": np.arange(8.0), "b": np.ones(8)}
    student, teacher = net("student"), net("teacher")
    soft = kd.Term(kd.losses.SoftTarget(), "logits/a", "logits/a")
    distiller = kd.Distiller(student, teacher, terms=[soft])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), {"a": loss, "b": loss})
    logs = distiller.train_on_batch(x, y, sample_weight=weight, return_dict=True)
    values = kd.losses.SoftTarget(reduction=None)(teacher(x)["a"], student(x)["a"])
    expected = (np.arange(8.0) * ops.convert_to_numpy(values)).mean()
    assert logs["soft_target"] == pytest.approx(expected, rel=1e-5)


def test_unlabelled_data_teach_without_a_loss(vectors):
    student, teacher = classifier("student"), classifier("teacher")
    distiller = kd.Distiller(student, teacher, label_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.05))

    def gap():
        outputs = (ops.convert_to_numpy(m(vectors[0])) for m in (student, teacher))
        return np.abs(np.subtract(*outputs)).mean()

    before = gap()
    logs = distiller.fit(vectors[0], epochs=100, verbose=0).history
    assert set(logs) == {"loss", "soft_target"}
    assert logs["soft_target"][-1] < 0.05 * logs["soft_target"][0] and gap() < before


def test_subclassed_nets_are_built_by_the_first_batch(vectors, cross_entropy):
    @keras.saving.register_keras_serializable(package="tests")
    class Net(keras.Model):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.blocks = [layers.Dense(units, "relu"), layers.Dense(units)]
            self.head = layers.Dense(3)

        def call(self, inputs):
            for block in self.blocks:
                inputs = block(inputs)
            return self.head(inputs)

    teacher, student = Net(6, name="teacher"), Net(4, name="student")
    teacher(vectors[0])
    hint = kd.Term(kd.losses.Hint(), student="blocks/1", teacher="blocks/0")
    distiller = kd.Distiller(student, teacher, terms=[hint])
    distiller.compile("sgd", cross_entropy)
    assert not distiller.built
    logs = distiller.fit(*vectors, epochs=2, verbose=0).history
    assert distiller.built and logs["hint"][1] < logs["hint"][0]
    assert len(distiller.trainable_variables) == 8


def test_schedules_are_read_at_each_step(vectors, cross_entropy):
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    temperature = keras.optimizers.schedules.PolynomialDecay(8.0, 4, 4.0)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            bound = self.model.terms["soft_target"]
            values = self.model.label_weight, bound.weight, bound.temperature
            seen.append([float(value) for value in values])

    term = kd.Term(kd.losses.SoftTarget(temperature), weight=0.5)
    distiller = kd.Distiller(
        classifier("student"),
        classifier("teacher"),
        terms=[term],
        label_weight=schedule,
    )
    distiller.compile("sgd", cross_entropy)
    distiller.fit(*vectors, batch_size=4, verbose=0, callbacks=[Look()])
    np.testing.assert_allclose(
        seen, [[1.0, 0.5, 8], [0.75, 0.5, 7], [0.5, 0.5, 6], [0.25, 0.5, 5]]
    )


def test_a_callback_may_set_what_is_a_number(vectors, cross_entropy):
    class SetAll(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.label_weight.assign(0.0)
                self.model.terms["soft_target"].weight.assign(3.0)
                self.model.terms["soft_target"].temperature.assign(1.0)

    student, teacher = classifier("student"), classifier("teacher")
    distiller = kd.Distiller(student, teacher)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy)
    logs = distiller.fit(*vectors, epochs=2, verbose=0, callbacks=[SetAll()]).history
    cold = kd.losses.SoftTarget(1.0)(teacher(vectors[0]), student(vectors[0]))
    assert logs["soft_target"][1] == pytest.approx(float(cold), rel=1e-4)
    assert logs["loss"][1] == pytest.approx(3 * float(cold), rel=1e-4)
