"""A frozen teacher has the teacher's values at each tap that remains."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill import taps
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps import Tap, tracing

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 12, 12, 3)).astype("float32")


def trained(model, seed=0):
    """Set the statistics of normalizations to values as after training."""
    rng = np.random.default_rng(seed)
    for layer in flatten_layers(model):
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(size=size))
            layer.moving_variance.assign(rng.uniform(0.3, 3.0, size))
            if layer.gamma is not None:
                layer.gamma.assign(rng.uniform(-1.5, 1.5, size))
            if layer.beta is not None:
                layer.beta.assign(rng.normal(size=size))
    return model


def array(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def same(found, expected, bound=2e-5):
    found, expected = array(found), array(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


def kinds(model):
    return [type(x).__name__ for x in flatten_layers(model, include_self=False)]


def value(model, x, tap):
    return taps.forward(model, x, [tap], training=False)[1][tap]


def lost_taps(model, frozen, x):
    """Compare all layers' values; return the paths whose value no longer exists."""
    lost, left = [], []
    for path in taps.layer_paths(model):
        try:
            layer = taps.find_layer(frozen, path)
        except ValueError as error:
            assert "kd.freeze folded" in str(error)
            lost.append(path)
        else:
            left += [] if isinstance(layer, layers.InputLayer) else [Tap(path)]
    found, expected = (
        taps.forward(net, x, left, training=False)[1] for net in (frozen, model)
    )
    for tap in left:
        same(found[tap], expected[tap])
    return lost


def convolved(x, kernel):
    """Convolve `(B, H, W, C)` without padding, in float64."""
    x, kernel = array(x), array(kernel)
    high, wide = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
    return sum(
        np.einsum("bhwc,cf->bhwf", x[:, i : i + high, j : j + wide], kernel[i, j])
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )


def normalized(x, norm):
    """Normalize by the formula, in float64."""
    scale = 1.0 if norm.gamma is None else array(norm.gamma)
    offset = 0.0 if norm.beta is None else array(norm.beta)
    x = x - array(norm.moving_mean)
    return scale * x / np.sqrt(array(norm.moving_variance) + norm.epsilon) + offset


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_and_normalization_are_numpys(bias, scale):
    inputs = keras.Input((5, 5, 2))
    drawn = keras.initializers.RandomNormal(seed=3)
    conv = layers.Conv2D(3, 3, use_bias=bias, bias_initializer=drawn, name="conv")
    norm = layers.BatchNormalization(scale=scale, center=scale, name="norm")
    model = trained(keras.Model(inputs, layers.ReLU()(norm(conv(inputs)))))
    x = RNG.normal(size=(3, 5, 5, 2)).astype("float32")
    frozen = kd.freeze(model, x)
    plain = convolved(x, conv.kernel) + (array(conv.bias) if bias else 0.0)
    expected = normalized(plain, norm)
    same(value(frozen, x, Tap("norm")), expected, 1e-6)
    same(frozen(x), np.maximum(expected, 0.0), 1e-6)
    assert "BatchNormalization" not in kinds(frozen)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution_and_normalization_are_numpys(multiplier):
    inputs = keras.Input((5, 5, 3))
    conv = layers.DepthwiseConv2D(3, depth_multiplier=multiplier, name="conv")
    norm = layers.BatchNormalization(name="norm")
    model = trained(keras.Model(inputs, norm(conv(inputs))))
    x = RNG.normal(size=(3, 5, 5, 3)).astype("float32")
    frozen = kd.freeze(model, x)
    kernel = array(conv.kernel)
    plain = np.concatenate(
        [convolved(x[..., c : c + 1], kernel[:, :, c, None]) for c in range(3)], -1
    )
    same(frozen(x), normalized(plain + array(conv.bias), norm), 1e-6)


def test_a_normalization_alone_is_numpys():
    inputs = keras.Input((3, 4, 5))
    norm = layers.BatchNormalization(axis=2, name="norm")
    model = trained(keras.Model(inputs, norm(inputs)))
    x = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
    frozen = kd.freeze(model, x)
    expected = normalized(x.swapaxes(2, 3), norm).swapaxes(2, 3)
    same(frozen(x), expected, 1e-6)
    assert "BatchNormalization" not in kinds(frozen)


def mlp():
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Dense(6, name="first")(layers.Flatten(name="flatten")(x))
    x = layers.Activation("tanh", name="tanh")(layers.BatchNormalization(name="n")(x))
    x = layers.GaussianNoise(0.5, name="noise")(layers.Dropout(0.5, name="drop")(x))
    return keras.Model(inputs, layers.Dense(4, name="logits")(x))


def nested():
    """A functional and a Sequential model in a model, with a normalization apart."""
    inner = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, name="conv")(inner)
    x = layers.BatchNormalization(name="norm")(x)
    inner = keras.Model(inner, layers.Conv2D(5, 3, name="last")(x), name="inner")
    head = keras.Sequential(
        [layers.Dense(6, name="dense"), layers.BatchNormalization(name="norm")],
        name="head",
    )
    inputs = keras.Input((12, 12, 3))
    x = layers.BatchNormalization(name="apart")(inner(inputs))
    return keras.Model(inputs, head(layers.Flatten(name="flat")(x)), name="outer")


def several_outputs():
    inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv1D(4, 3, padding="same", name="rows")(inputs[:, 0])
    x = layers.BatchNormalization(name="rows_norm")(x)
    y = layers.SeparableConv2D(4, 3, depth_multiplier=2, name="separable")(inputs)
    y = layers.BatchNormalization(name="separable_norm")(y)
    z = layers.Conv2DTranspose(5, 3, strides=2, name="up")(inputs)
    z = layers.BatchNormalization(name="up_norm")(z)
    z = layers.Conv3D(2, 2, name="cube")(z[:, :4, :4, :, None])
    z = layers.BatchNormalization(name="cube_norm")(z)
    return keras.Model({"image": inputs}, {"x": x * 2.0, "y": y, "z": [z]})


NETS = {
    "resnet": lambda: kd.models.resnet((12, 12, 3), 5, depth=8, width=4),
    "wide_resnet": lambda: kd.models.wide_resnet((12, 12, 3), 5, depth=10, widen=1),
    "conv_net": lambda: kd.models.conv_net((12, 12, 3), 5, filters=(4, 8)),
    "mlp": mlp,
    "nested": nested,
}
LOST = {
    "resnet": 9,
    "wide_resnet": 3,
    "conv_net": 2,
    "mlp": ["first"],
    "nested": ["inner/conv", "head/layers/0"],
}


@pytest.mark.parametrize("net", NETS)
def test_every_layer_keeps_its_output(net):
    """Except the folded ones, whose names have changed."""
    model = trained(NETS[net]())
    before = [array(v) for v in model.variables]
    expected = array(model(IMAGES, training=False))
    frozen = kd.freeze(model, IMAGES)
    same(frozen(IMAGES, training=False), expected)
    lost = lost_taps(model, frozen, IMAGES)
    assert lost == LOST[net] or len(lost) == LOST[net]
    assert not {"BatchNormalization", "Dropout", "GaussianNoise"} & set(kinds(frozen))
    assert not frozen.trainable_weights
    # The model is unchanged; its layers have not been called again.
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, array(new))
    assert all(len(layer._inbound_nodes) < 3 for layer in model.layers)
    # The copy's weights are separate.
    for variable in model.variables:
        variable.assign(np.zeros(variable.shape))
    same(frozen(IMAGES, training=False), expected)


def test_outputs_by_name_and_other_kinds_of_convolution():
    model = trained(several_outputs())
    x = {"image": IMAGES}
    frozen = kd.freeze(model, x)
    found, expected = frozen(x), model(x)
    assert set(found) == set(expected) == {"x", "y", "z"}
    for name in expected:
        same(keras.tree.flatten(found[name])[0], keras.tree.flatten(expected[name])[0])
    assert {"rows_folded", "separable_folded", "up_folded", "cube_folded"} <= {
        layer.name for layer in frozen.layers
    }


def test_a_net_of_keras_applications():
    model = keras.applications.MobileNetV2(
        (32, 32, 3), weights=None, classes=5, classifier_activation=None
    )
    x = RNG.normal(size=(2, 32, 32, 3)).astype("float32")
    frozen = kd.freeze(trained(model), x)
    same(frozen(x), model(x, training=False))
    assert "BatchNormalization" not in kinds(frozen)
    assert sum(layer.name.endswith("_folded") for layer in frozen.layers) == 52


def called_twice(norms):
    """A convolution called twice, each time before one of the normalizations."""
    inputs = keras.Input((12, 12, 3))
    conv = layers.Conv2D(4, 3, name="conv")
    made = [layers.BatchNormalization(name=f"norm{i}") for i in range(norms)]
    a = made[0](conv(inputs))
    b = made[-1](conv(layers.ReLU(name="relu")(inputs)))
    return trained(keras.Model(inputs, layers.Subtract(name="gap")([a, b])))


@pytest.mark.parametrize("norms, folded", [(1, ["conv"]), (2, [])])
def test_a_shared_layer_is_folded_where_one_normalization_follows(norms, folded):
    model = called_twice(norms)
    frozen = kd.freeze(model, IMAGES)
    assert lost_taps(model, frozen, IMAGES) == folded
    for call in (0, 1):
        tap = Tap(f"norm{call if norms == 2 else 0}", call=call if norms == 1 else 0)
        same(value(frozen, IMAGES, tap), value(model, IMAGES, tap))
    assert "BatchNormalization" not in kinds(frozen)


def not_folded(case):
    inputs = keras.Input((12, 12, 3))
    activation = "relu" if case == "activation" else None
    conv = layers.Conv2D(4, 3, activation=activation, name="conv")
    norm = layers.BatchNormalization(axis=1 if case == "axis" else -1, name="norm")
    if case == "norm of another precision":
        norm = layers.BatchNormalization(dtype="float64", name="norm")
    if case == "crossed":
        conv = layers.Conv2D(3, 3, name="conv")
    if case == "penalty":
        conv.activity_regularizer = keras.regularizers.L2(0.1)
    if case == "other code":
        norm = type("OtherNorm", (layers.BatchNormalization,), {})(name="norm")
    x = conv(inputs)
    y = norm(x)

    def crossed():
        """Two calls of each of the two, of which one is common."""
        other = layers.ReLU(name="relu")(conv(layers.ReLU(name="before")(inputs)))
        return [other, y, norm(layers.MaxPooling2D(3, 1, name="pool")(inputs))]

    outputs = {
        "crossed": crossed,
        "second use": lambda: layers.Add(name="add")([x, y]),
        "output": lambda: [x, y],
        "two into one": lambda: [y, norm(layers.Conv2D(4, 3, name="other")(inputs))],
    }
    return trained(keras.Model(inputs, outputs.get(case, lambda: y)()))


@pytest.mark.parametrize(
    "case",
    [
        *("activation", "axis", "penalty", "second use", "output", "two into one"),
        *("crossed", "norm of another precision", "other code"),
    ],
)
def test_what_is_not_folded(case):
    if case.endswith("precision") and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only by its own setting")
    model = not_folded(case)
    frozen = kd.freeze(model, IMAGES)
    assert lost_taps(model, frozen, IMAGES) == []
    assert ("OtherNorm" in kinds(frozen)) == (case == "other code")


def test_what_is_kept():
    model = trained(nested())
    frozen = kd.freeze(model, IMAGES, keep=["inner/norm", Tap("head", side="input")])
    assert lost_taps(model, frozen, IMAGES) == []
    assert kinds(frozen).count("BatchNormalization") == 2
    for tap in (Tap("inner/norm", side="input"), Tap("head/norm", side="input")):
        same(value(frozen, IMAGES, tap), value(model, IMAGES, tap))
    frozen = kd.freeze(model, IMAGES, keep="inner/conv")
    assert lost_taps(model, frozen, IMAGES) == ["head/layers/0"]
    with pytest.raises(ValueError, match="no layer 'inner/convolution'"):
        kd.freeze(model, IMAGES, keep="inner/convolution")


def test_a_tap_between_what_was_folded_says_so():
    frozen = kd.freeze(trained(nested()), IMAGES)
    for tap in (Tap("inner/conv"), Tap("inner/norm", side="input")):
        for run in (taps.forward, lambda *a, training: taps.up_to(*a)):
            with pytest.raises(ValueError, match=f"'{tap.path}'.*keep='{tap.path}'"):
                run(frozen, IMAGES, [tap], training=False)
    # The input of a normalization that is not folded remains.
    same(
        value(frozen, IMAGES, Tap("apart", side="input")),
        value(frozen, IMAGES, Tap("inner")),
    )


@pytest.mark.parametrize(
    "dtype, bound", [("bfloat16", 0.05), ("float16", 0.01), ("mixed_bfloat16", 0.05)]
)
def test_lower_precision(dtype, bound):
    model = trained(NETS["resnet"]())
    frozen = kd.freeze(model, IMAGES, dtype=dtype)
    assert keras.backend.standardize_dtype(frozen(IMAGES).dtype) == dtype.split("_")[-1]
    weights = {
        keras.backend.standardize_dtype(w.dtype) for w in frozen.layers[1].weights
    }
    assert weights == {"float32" if "mixed" in dtype else dtype}
    same(frozen(IMAGES), model(IMAGES), bound)
    gap = np.abs(array(frozen(IMAGES)) - array(model(IMAGES))).max()
    assert gap > 1e-4 * np.abs(array(model(IMAGES))).max()
    with pytest.raises(ValueError, match=r"in output 0 by .* the tolerance is 1e-05"):
        kd.freeze(model, IMAGES, dtype=dtype, tolerance=1e-5)


def test_a_kept_tap_is_compared_too():
    """Where the output alone would not show the difference."""
    inputs = keras.Input((12, 12, 3))
    x = Forgetful(3.0, name="forgetful")(inputs)
    outputs = layers.Lambda(lambda x: 0.0 * x, name="nothing")(x)
    model = keras.Model(inputs, outputs)
    kd.freeze(model, IMAGES)
    with pytest.raises(ValueError, match="in tap 'forgetful' by"):
        kd.freeze(model, IMAGES, keep="forgetful")


class Forgetful(layers.Layer):
    """A layer whose configuration lacks its argument."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return self.factor * x

    def get_config(self):
        return {"name": self.name}


class Needy(Forgetful):
    def __init__(self, factor, **kwargs):
        super().__init__(factor, **kwargs)


class OwnCode(keras.Model):
    def __init__(self):
        super().__init__(name="own_code")
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class OwnCall(keras.Model):
    """A functional model by its constructor, with a custom call."""

    def call(self, x, training=None):
        return 2.0 * super().call(x, training=training)


def small(*made, name="small"):
    return keras.Sequential([keras.Input((4,)), *made], name=name)


def own_call():
    inputs = keras.Input((4,))
    return OwnCall(inputs, layers.Dense(3)(inputs), name="own_call")


def own_code():
    model = OwnCode()
    model(np.zeros((1, 4)))
    return model


def in_training_form():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dropout(0.5, name="drop")(inputs, training=True))


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (
            lambda: np.maximum,
            TypeError,
            "keras.Model or a kd.EnsembleTeacher; got ufunc",
        ),
        (lambda: OwnCode(), ValueError, "'own_code' is not built"),
        (own_code, ValueError, r"'own_code' has a custom call \(OwnCode.call"),
        (own_call, ValueError, r"'own_call' has a custom call \(OwnCall.call"),
        (in_training_form, ValueError, "'drop' with training=True"),
        (
            lambda: small(Needy(2.0, name="n")),
            ValueError,
            "'n' .Needy. can't be copied",
        ),
        (
            lambda: small(Forgetful(3.0)),
            ValueError,
            "'small' differs from it in output 0",
        ),
        (lambda: small(Forgetful(np.nan)), ValueError, "by nan"),
    ],
)
def test_what_cannot_be_frozen(make, kind, words):
    with pytest.raises(kind, match=words):
        kd.freeze(make(), np.ones((2, 4), "float32"))


def test_an_empty_batch_shows_no_difference():
    with pytest.raises(ValueError, match="one or more samples"):
        kd.freeze(mlp(), IMAGES[:0])


@pytest.mark.filterwarnings("ignore:Layer BatchNormalization does not have")
def test_quantized_layers_stay_quantized():
    model = trained(
        small(layers.Dense(5), layers.BatchNormalization(), layers.Dense(3))
    )
    model.quantize("int8")
    x = RNG.normal(size=(3, 4)).astype("float32")
    for dtype, bound in ((None, 2e-5), ("bfloat16", 0.05)):
        frozen = kd.freeze(model, x, dtype=dtype)
        same(frozen(x), model(x), bound)
        assert [x.quantization_mode for x in frozen.layers[1::2]] == ["int8", "int8"]


def test_an_ensemble_keeps_its_average_and_weights():
    members = [trained(NETS["conv_net"](), seed) for seed in range(2)]
    ensemble = kd.EnsembleTeacher(members, "geometric", weights=[3.0, 1.0])
    frozen = kd.freeze(ensemble, IMAGES, keep=["logits", "1/stack1_norm1"])
    assert isinstance(frozen, kd.EnsembleTeacher)
    wanted = [Tap("logits"), Tap("0/stack2"), Tap("1/stack1_conv1")]
    found, expected = frozen(IMAGES, wanted), ensemble(IMAGES, wanted)
    same(
        frozen.logits(found[wanted[0]], 2.0), ensemble.logits(expected[wanted[0]], 2.0)
    )
    for tap in wanted[1:]:
        same(found[tap], expected[tap])
    with pytest.raises(ValueError, match="keep='stack1_conv1'"):
        frozen(IMAGES, [Tap("0/stack1_conv1")])


def test_a_distiller_learns_the_same_from_it():
    """Soft targets, hidden layers, and statistics of normalizations."""
    teacher = trained(NETS["conv_net"]())
    before = Tap("stack2", side="input")
    found = []
    for net in (teacher, kd.freeze(teacher, IMAGES)):
        keras.utils.set_random_seed(0)
        student = kd.models.conv_net((12, 12, 3), 5, filters=(2, 4))
        terms = [
            kd.Term(kd.losses.SoftTarget(4.0)),
            kd.Term(kd.losses.Hint(), "stack1", "stack1_norm1"),
            kd.Term(kd.losses.MarginActivation(), before, before),
        ]
        distiller = kd.Distiller(student, net, terms=terms, label_weight=0.0)
        distiller.compile("adam")
        found.append(distiller.fit(IMAGES, epochs=2, verbose=0).history)
    assert found[0]["margin_activation"][0] > 0
    for name, expected in found[0].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("net, layer", [("wide_resnet", "relu"), ("resnet", "stack2")])
def test_margins_of_a_normalization_alone_and_of_a_sum(net, layer):
    model = trained(NETS[net]())
    tap, spec = Tap(layer, side="input"), tracing.input_of(model)
    norms = []
    for net in (model, kd.freeze(model, IMAGES)):
        teacher = kd.Teacher(net)
        teacher.find_norm(spec, tap)
        norms.append(teacher.norm(tap))
    for found, expected in zip(*norms, strict=True):
        np.testing.assert_array_equal(array(found), array(expected))


def test_it_is_saved_and_frozen_again(tmp_path):
    model = trained(NETS["wide_resnet"]())
    frozen = kd.freeze(model, IMAGES)
    frozen.save(tmp_path / "frozen.keras")
    loaded = keras.saving.load_model(tmp_path / "frozen.keras")
    again = kd.freeze(loaded, IMAGES, tolerance=0.0)
    assert kinds(again) == kinds(frozen)
    np.testing.assert_array_equal(array(again(IMAGES)), array(frozen(IMAGES)))
    with pytest.raises(ValueError, match=r"kd\.freeze folded"):
        value(again, IMAGES, Tap("stack1_block1_a_conv"))


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_dropout_is_saved_as_an_identity(tmp_path, dtype):
    row = [keras.Input((5,)), layers.Dense(4, "relu"), layers.Dropout(0.5)]
    model = keras.Sequential([*row, layers.Dense(3, name="last")])
    x = RNG.normal(size=(4, 5)).astype("float32")
    frozen = kd.freeze(model, x, dtype=dtype)
    frozen.save(tmp_path / "frozen.keras")
    loaded = keras.saving.load_model(tmp_path / "frozen.keras")
    policies = [x.dtype_policy.name for x in loaded.layers[1:]]
    assert policies == [dtype or "float32"] * 3
    same(ops.cast(loaded(x), "float32"), ops.cast(frozen(x), "float32"))


def test_paths_of_attributes_and_indices_stay():
    """Also where the copy has no such attribute, or its input before the layers."""
    inputs = keras.Input((8,))
    net = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(3)])
    model = keras.Model(inputs, layers.Dense(2)(net(inputs)))
    model.backbone = net
    net.blocks = [net.layers[1]]
    frozen = kd.freeze(model, np.ones((2, 8), "float32"))
    x = np.random.default_rng(0).normal(size=(2, 8)).astype("float32")
    assert {"backbone/layers/0", "backbone/blocks/0"} <= set(taps.layer_paths(model))
    assert lost_taps(model, frozen, x) == []
