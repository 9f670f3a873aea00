"""Models that end in probabilities, as models that end in logits."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from tests.formulas import softmax

X = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, "float64")))


def functional(end):
    inputs = keras.Input((8,))
    hidden = layers.Dense(6, "tanh", name="hidden")(inputs)
    return keras.Model(inputs, end(hidden), name="net")


def scaled_logits(x, classes=4):
    return layers.Dense(classes, kernel_initializer="random_normal", name="head")(5 * x)


def check(model, inverse=softmax, x=X):
    """Check that a model's logits are those behind its probabilities, in a copy."""
    before = [np.array(w) for w in model.get_weights()]
    expected = model.predict(x, verbose=0)
    copy = kd.as_logits(model)
    found = copy.predict(x, verbose=0)
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    for logits, probabilities in pairs:
        np.testing.assert_allclose(inverse(logits), probabilities, rtol=1e-5)
        assert np.abs(inverse(probabilities) - probabilities).max() > 1e-3
    variables = {id(v) for v in model.variables}
    assert not any(id(v) in variables for v in copy.variables)
    copy.set_weights([0 * w for w in copy.get_weights()])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    return kd.as_logits(model)


ENDS = {
    "dense": lambda x: layers.Dense(4, "softmax", name="head")(x),
    "activation": lambda x: layers.Activation("softmax", name="p")(scaled_logits(x)),
    "softmax": lambda x: layers.Softmax(name="p")(scaled_logits(x)),
    "operation": lambda x: ops.softmax(scaled_logits(x)),
    "reshape": lambda x: layers.Reshape((1, 4))(ops.softmax(scaled_logits(x))),
    "dense_reshape": lambda x: layers.Reshape((1, 4))(layers.Dense(4, "softmax")(x)),
    "flatten": lambda x: layers.Flatten()(
        layers.Softmax()(layers.Reshape((1, 4))(scaled_logits(x)))
    ),
    "einsum": lambda x: layers.EinsumDense("ab,bc->ac", 4, activation="softmax")(x),
    "float32": lambda x: layers.Activation("softmax", dtype="float32")(
        scaled_logits(x)
    ),
}
SIGMOIDS = {
    "dense": lambda x: layers.Dense(3, "sigmoid")(x),
    "activation": lambda x: layers.Activation("sigmoid")(scaled_logits(x, 1)),
    "operation": lambda x: ops.sigmoid(scaled_logits(x)),
    "moved": lambda x: layers.Flatten()(ops.sigmoid(layers.Reshape((2, 3))(x))),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_softmax_is_left_out(end):
    copy = check(functional(ENDS[end]))
    assert "hidden" in [layer.name for layer in copy.layers]


@pytest.mark.parametrize("end", SIGMOIDS)
def test_a_sigmoid_is_left_out(end):
    check(functional(SIGMOIDS[end]), sigmoid)


def test_it_is_saved_and_trained_as_any_model(tmp_path):
    model = functional(ENDS["softmax"])
    model.get_layer("hidden").trainable = False
    copy = kd.as_logits(model)
    assert [layer.trainable for layer in copy.layers[1:]] == [False, True, True]
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), copy.predict(X, verbose=0)
    )


def test_sequential_and_nested_models():
    parts = [layers.Dense(6, "relu"), layers.Dense(4), layers.Softmax()]
    check(keras.Sequential([keras.Input((8,)), *parts]))
    for end in ("dense", "softmax", "operation"):
        inner = keras.Sequential([keras.Input((8,)), functional(ENDS[end])])
        inputs = keras.Input((8,))
        outer = keras.Model(inputs, layers.Reshape((4,))(inner(layers.ReLU()(inputs))))
        check(outer)


def test_of_several_outputs_those_that_are_probabilities():
    model = functional(
        lambda x: {
            "kind": layers.Dense(4, "softmax", name="kind")(x),
            "there": layers.Dense(1, "sigmoid", name="there")(x),
            "place": layers.Dense(2, name="place")(x),
        }
    )
    old, new = (m.predict(X, verbose=0) for m in (model, kd.as_logits(model)))
    np.testing.assert_allclose(softmax(new["kind"]), old["kind"], rtol=1e-5)
    np.testing.assert_allclose(sigmoid(new["there"]), old["there"], rtol=1e-5)
    np.testing.assert_array_equal(new["place"], old["place"])
    listed = functional(lambda x: [layers.Dense(4, "softmax", name=n)(x) for n in "ab"])
    assert kd.as_logits(listed).output_names == ["a", "b"]
    check(listed)


@keras.saving.register_keras_serializable()
class Configured(keras.Model):
    """Its configuration names the activation, as that of a keras_hub task."""

    def __init__(self, activation="softmax", inner_activation="sigmoid", **kwargs):
        super().__init__(**kwargs)
        self.activation, self.inner_activation = activation, inner_activation
        self.hidden = layers.Dense(6, inner_activation)
        self.head = layers.Dense(4, activation)

    def call(self, x):
        return self.head(self.hidden(x))

    def get_config(self):
        own = {"activation": self.activation}
        own["inner_activation"] = self.inner_activation
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable()
class Fixed(keras.Model):
    """Its activation is part of its code."""

    def __init__(self, end="dense", **kwargs):
        super().__init__(**kwargs)
        self.end = end
        self.head = layers.Dense(4, "softmax" if end == "dense" else None)
        self.last = layers.Softmax()

    def call(self, x):
        x = self.head(x)
        return x if self.end == "dense" else self.last(x)

    def get_config(self):
        return {**super().get_config(), "end": self.end}


def test_a_subclass_that_names_its_activation(tmp_path):
    model = Configured()
    model(X)
    copy = check(model)
    assert kd.Teacher(copy).model is copy
    assert type(copy) is Configured and copy.inner_activation == "sigmoid"
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), copy.predict(X, verbose=0)
    )


@pytest.mark.parametrize("end", ["dense", "softmax"])
def test_a_subclass_that_does_not_name_it_is_not_saved(end, tmp_path):
    model = Fixed(end)
    model(X)
    copy = check(model)
    with pytest.raises(NotImplementedError, match="would restore its probabilities"):
        copy.save(tmp_path / "copy.keras")
    inputs = keras.Input((8,))
    check(keras.Model(inputs, model(inputs)))


def test_a_network_of_keras_applications():
    net = keras.applications.MobileNet(
        alpha=0.25, weights=None, input_shape=(32, 32, 3), classes=5
    )
    rng = np.random.default_rng(0)
    net.get_layer("conv_preds").bias.assign(rng.normal(size=5))
    check(net, x=rng.normal(size=(2, 32, 32, 3)).astype("float32"))


def test_a_task_of_keras_hub_stays_one():
    hub = pytest.importorskip("keras_hub").models
    sizes = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    backbone = hub.BertBackbone(
        vocabulary_size=20, num_layers=1, max_sequence_length=6, **sizes
    )
    task = hub.BertTextClassifier(backbone, 3, activation="softmax")
    rng = np.random.default_rng(0)
    task.set_weights([rng.normal(size=w.shape) for w in task.get_weights()])
    x = {"token_ids": rng.integers(1, 20, (4, 6)), "padding_mask": np.ones((4, 6))}
    copy = check(task, x={**x, "segment_ids": np.zeros((4, 6))})
    assert type(copy) is hub.BertTextClassifier


@pytest.mark.long
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_task_of_keras_hub_keeps_its_preprocessing(name, tmp_path):
    pytest.importorskip("keras_hub")
    from tests import hub_tasks

    student, task = hub_tasks.pair(name)
    config = {**task.get_config(), "activation": "softmax"}
    model = type(task).from_config({**config, "preprocessor": task.preprocessor})
    model.set_weights(task.get_weights())
    (x, _), copy = hub_tasks.data_of(name), kd.as_logits(model)
    z = copy.predict(x, verbose=0)
    p = model.predict(x, verbose=0)
    np.testing.assert_allclose(softmax(z), p, rtol=1e-4, atol=1e-6)
    distiller = kd.Distiller(student, copy, label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.fit(x, verbose=0).history["soft_target"][0]
    p, q = softmax(z, 4.0), softmax(student.predict(x, verbose=0), 4.0)
    assert found == pytest.approx(16 * (p * np.log(p / q)).sum(-1).mean(), rel=1e-3)
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), z, rtol=1e-5)


def test_a_distiller_learns_from_it():
    student, model = functional(scaled_logits), functional(ENDS["dense"])
    distiller = kd.Distiller(student, kd.as_logits(model), label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.fit(X, verbose=0).history["soft_target"][0]
    p, z = model.predict(X, verbose=0), student.predict(X, verbose=0)
    p, q = softmax(np.log(p), 4.0), softmax(z, 4.0)
    expected = 16 * (p * np.log(p / q)).sum(-1).mean()
    assert found == pytest.approx(expected, rel=1e-4)


class Bare(keras.Model):
    def __init__(self, width):
        super().__init__()
        self.head = layers.Dense(width, "softmax")

    def call(self, x):
        return self.head(x)


def shared_head():
    p = layers.Dense(4, "softmax", name="head")
    return functional(lambda x: [p(x), layers.Dense(2)(p(x))])


def outputs_of_nested(used_inside=False, deeper=False):
    """Return a model of a nested one of a softmax, a sigmoid and values."""
    nested = functional(
        lambda x: [
            layers.Softmax()(scaled_logits(x)),
            ops.sigmoid(layers.Dense(3, name="labels")(x)),
            layers.Dense(2, name="values")(x),
        ]
    )
    nested.name = "nested"
    inputs = keras.Input((8,))
    outputs = list(nested(inputs))
    if deeper:
        inner, inputs = keras.Model(inputs, outputs), keras.Input((8,))
        outputs = list(inner(inputs))
    if used_inside:
        outputs[2] = layers.Dense(2, name="more")(outputs[2])
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("where", [{}, {"used_inside": True}, {"deeper": True}])
def test_several_outputs_of_a_nested_model(where):
    model = outputs_of_nested(**where)
    copy = kd.as_logits(model)
    old, new = (m.predict(X, verbose=0) for m in (model, copy))
    np.testing.assert_allclose(softmax(new[0]), old[0], rtol=1e-5)
    np.testing.assert_allclose(sigmoid(new[1]), old[1], rtol=1e-5)
    np.testing.assert_allclose(new[2], old[2], rtol=1e-5)
    assert np.abs(new[1] - old[1]).max() > 0.1
    assert copy.count_params() == model.count_params()


def steps(end):
    inputs = keras.Input((3, 8))
    return keras.Model(inputs, end(layers.Dense(3, name="hidden")(inputs)))


STEPS = np.random.default_rng(1).normal(size=(5, 3, 8)).astype("float32")


def test_a_softmax_at_each_step():
    dense = layers.Dense(4, "softmax")
    check(steps(lambda x: layers.TimeDistributed(dense)(x)), x=STEPS)
    check(steps(lambda x: layers.Dense(4, "softmax")(x)[:, 1]), x=STEPS)
    check(functional(lambda x: layers.Softmax(axis=1)(scaled_logits(x))))


OTHER_AXES = {
    "layer": lambda x: layers.Softmax(axis=1)(x),
    "operation": lambda x: ops.softmax(x, axis=1),
    "axes": lambda x: layers.Softmax(axis=(1, 2))(x),
}
MOVED_CLASSES = {
    "permute": lambda x: layers.Permute((2, 1))(ops.softmax(x)),
    "transpose": lambda x: ops.transpose(ops.softmax(x), (0, 2, 1)),
    "item": lambda x: ops.softmax(x)[..., 0],
}


@pytest.mark.parametrize("kind", [*OTHER_AXES, *MOVED_CLASSES])
def test_a_softmax_of_another_axis_is_refused(kind):
    """Here the two axes are of one size, which would show nothing."""
    is_other = kind in OTHER_AXES
    end = OTHER_AXES[kind] if is_other else MOVED_CLASSES[kind]
    words = "classes are the last axis" if is_other else "moves the classes"
    with pytest.raises(ValueError, match=words):
        kd.as_logits(steps(end))


class OfAxis(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head, self.end = layers.Dense(3), layers.Softmax(axis=1)

    def call(self, x):
        return self.end(self.head(x))

    def get_config(self):
        return super().get_config()


def test_a_softmax_of_another_axis_in_a_subclass_is_refused():
    model = OfAxis()
    model(STEPS)
    with pytest.raises(ValueError, match="classes are the last axis"):
        kd.as_logits(model)


def test_a_lambda_keeps_what_its_function_refers_to():
    """Keras's own configuration of a lambda has lost its globals."""
    twice = layers.Lambda(lambda t: ops.concatenate([t, -t], axis=-1))
    check(functional(lambda x: layers.Softmax()(twice(x))))
    given = layers.Lambda(lambda t: ops.flip(t, -1), output_shape=lambda s: s)
    check(functional(lambda x: layers.Dense(4, "softmax")(given(x))))


class WithoutKeywords(keras.Model):
    def __init__(self, width=4):
        super().__init__()
        self.head = layers.Dense(width, "softmax")

    def call(self, x):
        return self.head(x)

    def get_config(self):
        return {**super().get_config(), "width": 4}


@pytest.mark.parametrize(
    "make, words",
    [
        (WithoutKeywords, r"let __init__ take \*\*kwargs"),
        (lambda: functional(scaled_logits), "ends in 'head' \\(Dense\\)"),
        (lambda: functional(lambda x: layers.Dense(3, "relu")(x)), "activation 'relu'"),
        (lambda: functional(lambda x: layers.Lambda(ops.softmax)(x)), "Lambda"),
        (
            lambda: functional(
                lambda x: layers.Reshape((2, 2))(ops.softmax(scaled_logits(x)))
            ),
            "moves the classes of a softmax",
        ),
        (shared_head, "'head' are used elsewhere"),
        (lambda: Bare(4), "needs a get_config with all arguments"),
    ],
)
def test_what_has_no_logits_is_refused(make, words):
    model = make()
    model(X)
    with pytest.raises(ValueError, match=words) as error:
        kd.as_logits(model)
    assert "keras.Model(model.inputs, model.get_layer('...').output)" in str(
        error.value
    )


def test_what_is_no_built_model_is_refused():
    with pytest.raises(TypeError, match="got function"):
        kd.as_logits(softmax)
    with pytest.raises(ValueError, match="not built"):
        kd.as_logits(keras.Sequential([layers.Dense(4, "softmax")]))
