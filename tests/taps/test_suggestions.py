"""Which layers go together: suggested pairs are right and paste into terms."""

import keras
import pytest
from keras import layers

import keras_distill as kd


def paths(pairs, ends=True):
    return [(pair.student, pair.teacher) for pair in pairs if pair.stage_end == ends]


def test_reference_nets_meet_at_the_ends_of_their_stages():
    student = kd.models.resnet((32, 32, 3), 10, depth=8, width=8)
    teacher = kd.models.wide_resnet((32, 32, 3), 10, depth=10, widen=2)
    pairs = kd.suggest_taps(student, teacher)
    assert paths(pairs)[:3] == [(f"stack{i}", f"stack{i}") for i in (1, 2, 3)]
    assert paths(pairs)[3:] == [("pool", "pool")]
    assert paths(pairs, ends=False)
    assert pairs[2].student_shape == (None, 8, 8, 32)
    assert pairs[2].teacher_shape == (None, 8, 8, 128)


def test_the_lines_paste_into_terms():
    backbone = kd.models.conv_net((8, 8, 1), 6, filters=(4, 8), name="backbone")
    inputs = keras.Input((8, 8, 1))
    student = keras.Model(inputs, layers.Dense(10, name="logits")(backbone(inputs)))
    teacher = kd.models.conv_net((8, 8, 1), 10, filters=(8, 16), name="teacher")
    pairs = kd.suggest_taps(student, teacher)
    terms = eval(f"[\n{pairs}\n]", {"kd": kd})
    distiller = kd.Distiller(student, teacher, terms=terms)
    names = [pair.student.replace("/", "_") for pair in pairs]
    assert list(distiller.terms) == names and "backbone_stack2" in names


def test_other_resolutions_of_the_input_meet_by_their_share():
    student = kd.models.conv_net((16, 16, 3), 10, filters=(4, 8, 8))
    teacher = kd.models.conv_net((32, 32, 3), 10, filters=(8, 16, 16), name="teacher")
    found = paths(kd.suggest_taps(student, teacher))
    assert found[:3] == [(f"stack{i}", f"stack{i}") for i in (1, 2, 3)]


def test_nested_and_subclassed_models():
    backbone = kd.models.conv_net((8, 8, 1), 6, filters=(4, 8), name="backbone")
    inputs = keras.Input((8, 8, 1))
    nested = keras.Model(inputs, layers.Dense(3)(backbone(inputs)), name="nested")

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Conv2D(4, 3, padding="same", name="first")
            self.second = layers.Conv2D(8, 3, 2, padding="same", name="second")
            self.pool = layers.GlobalAveragePooling2D(name="pool")
            self.head = layers.Dense(3, name="head")

        def call(self, inputs):
            return self.head(self.pool(self.second(self.first(inputs))))

    net = Net()
    net.build((None, 8, 8, 1))
    pairs = kd.suggest_taps(net, nested, student_input=keras.KerasTensor((2, 8, 8, 1)))
    assert paths(pairs) == [
        ("first", "backbone/stack1"),
        ("second", "backbone/stack2"),
        ("pool", "backbone/logits"),
    ]


def test_blocks_of_sequence_models_meet_by_depth():
    def net(depth, width, name):
        inputs = keras.Input((12,), dtype="int32")
        x = layers.Embedding(20, width)(inputs)
        for i in range(depth):
            block_in = keras.Input((12, width))
            y = layers.MultiHeadAttention(2, 4)(block_in, block_in)
            block = keras.Model(block_in, layers.Dense(width)(y), name=f"block{i}")
            x = block(x)
        return keras.Model(inputs, layers.Dense(20, name="logits")(x), name=name)

    pairs = kd.suggest_taps(net(2, 8, "student"), net(6, 16, "teacher"))
    assert set(paths(pairs)) == {("block0", "block2"), ("block1", "block5")}


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_applications(name):
    make = getattr(keras.applications, name)
    teacher = make(weights=None, input_shape=(64, 64, 3), classes=10)
    student = kd.models.resnet((64, 64, 3), 10, depth=8, width=8)
    pairs = kd.suggest_taps(student, teacher)
    for pair in pairs:
        shape = kd.taps.find_layer(teacher, pair.teacher).output.shape
        assert shape == pair.teacher_shape
        assert len(shape) == 2 or shape[1:3] == pair.student_shape[1:3]
    assert len(paths(pairs)) >= 2


def test_keras_hub():
    """The ends of the stages come first: what the activation after the addition gives."""
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")

    def net(blocks, name):
        backbone = hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[blocks] * 4,
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="basic_block",
            image_shape=(64, 64, 3),
            name=name,
        )
        inputs = keras.Input((64, 64, 3))
        x = layers.GlobalAveragePooling2D()(backbone(inputs))
        return keras.Model(
            inputs, layers.Dense(10, name="logits")(x), name=name + "_net"
        )

    found = paths(kd.suggest_taps(net(1, "small"), net(2, "large")))
    for stage in range(3):
        pair = f"small/stack{stage}_block0_out", f"large/stack{stage}_block1_out"
        assert pair in found


def test_nothing_in_common():
    one = kd.models.mlp((4,), 3, units=())
    inputs = keras.Input((7, 7, 2))
    x = layers.Flatten()(layers.Conv2D(2, 3)(inputs))
    other = keras.Model(inputs, layers.Dense(3)(x))
    with pytest.raises(ValueError, match="of the input's height and width"):
        kd.suggest_taps(one, other)


def hub():
    return pytest.importorskip("keras_hub", reason="keras-hub is not installed").models


def gpt2(depth, positions=16):
    backbone = hub().GPT2Backbone(
        vocabulary_size=20,
        num_layers=depth,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=positions,
    )
    return hub().GPT2CausalLM(backbone, preprocessor=None)


def stack(name, *indices):
    return [f"backbone/{name}/{index}" for index in indices]


@pytest.mark.parametrize("positions", [4, 16])
def test_causal_language_models(positions):
    """A declared length is unknown; a model may take few positions."""
    pairs = kd.suggest_taps(gpt2(2, positions), gpt2(4))
    blocks = "transformer_layers"
    assert sorted(paths(pairs)) == list(
        zip(stack(blocks, 0, 1), stack(blocks, 1, 3), strict=True)
    )
    assert {pair.student_shape for pair in pairs} == {(None, None, 8)}
    (pair,) = kd.suggest_taps(gpt2(1), gpt2(4))
    assert (pair.student, pair.teacher) == (*stack(blocks, 0), *stack(blocks, 3))


def test_encoders_meet_encoders():
    def bart(depth):
        backbone = hub().BartBackbone(
            vocabulary_size=20,
            num_layers=depth,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=8,
            max_sequence_length=10,
        )
        return hub().BartSeq2SeqLM(backbone, preprocessor=None)

    found = paths(kd.suggest_taps(bart(1), bart(2)))
    kinds = "encoder", "decoder"
    lists = [f"backbone/transformer_{kind}_layer" for kind in kinds]
    assert len(found) == 2 and "backbone" not in dict(found)
    for kind, (own, other) in zip(kinds, found, strict=True):
        assert kind in own and kind in other, lists


def vit(depth, patch=8, width=8):
    backbone = hub().ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=(patch, patch),
        num_layers=depth,
        num_heads=2,
        hidden_dim=width,
        mlp_dim=8,
    )
    return hub().ViTImageClassifier(backbone, num_classes=3, preprocessor=None)


def test_vision_transformers_meet_by_blocks():
    """Whatever their patches are, as blocks have no resolution."""
    for teacher in (vit(4), vit(4, patch=4)):
        found = paths(kd.suggest_taps(vit(2), teacher))
        blocks = "vit_encoder/encoder_layers"
        expected = zip(stack(blocks, 0, 1), stack(blocks, 1, 3), strict=True)
        assert set(expected) <= set(found)
        assert "backbone" not in dict(found) and len(found) <= 3


@pytest.mark.parametrize("is_student", [True, False])
def test_tokens_of_patches_meet_maps_of_their_size(is_student):
    net = kd.models.conv_net((32, 32, 3), 3, filters=(4, 8, 8, 8))
    pair = (vit(2), net) if is_student else (net, vit(2))
    suggested = kd.suggest_taps(*pair)
    first, block = suggested[0], "backbone/vit_encoder/encoder_layers/1"
    taps = (block, "stack4") if is_student else ("stack4", block)
    assert (first.student, first.teacher) == taps
    assert {first.student_shape, first.teacher_shape} == {
        (None, 17, 8),
        (None, 4, 4, 8),
    }
    side = "adapter" if is_student else "teacher_adapter"
    assert f", {side}=kd.adapters.TokensToMap((4, 4))" in str(first)
    term = eval(str(first).split(",  #")[0], {"kd": kd})
    assert kd.Distiller(*pair, terms=[term]).built


def test_sizes_that_differ_by_rounding_meet():
    def net(padding):
        inputs = x = keras.Input((32, 32, 3))
        for index, filters in enumerate((4, 6, 8)):
            x = layers.Conv2D(filters, 3, 2, padding, name=f"c{index}")(x)
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return keras.Model(inputs, layers.Dense(2, name="logits")(x))

    pairs = kd.suggest_taps(net("valid"), net("same"))
    names = [("c0", "c0"), ("c1", "c1"), ("c2", "c2"), ("pool", "pool")]
    assert paths(pairs) == names
    sizes = [(x.student_shape[1], x.teacher_shape[1]) for x in pairs[:3]]
    assert sizes == [(15, 16), (7, 8), (3, 4)]


def test_queries_never_meet_keys():
    def net(depth):
        inputs = keras.Input((16, 16, 3))
        x = layers.Conv2D(8, 4, 4, name="patches")(inputs)
        x = layers.Reshape((16, 8))(x)
        for index in range(depth):
            y = layers.MultiHeadAttention(2, 4, name=f"attention{index}")(x, x)
            x = layers.Add(name=f"add{index}")([x, y])
        x = layers.GlobalAveragePooling1D(name="pool")(x)
        return keras.Model(inputs, layers.Dense(2, name="logits")(x))

    found = paths(kd.suggest_taps(net(2), net(3))) + paths(
        kd.suggest_taps(net(2), net(3)), ends=False
    )
    assert found[:2] == [("add1", "add2"), ("add0", "add1")]
    for own, other in found:
        assert "/" not in own + other, (own, other)


def test_unknown_sizes_of_images_stay_unknown():
    def net(filters):
        inputs = keras.Input((None, None, 3))
        x = layers.Conv2D(filters, 3, 2, "same", name="c")(inputs)
        x = layers.Conv2D(filters, 3, 2, "same", name="d")(x)
        return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x))

    pairs = kd.suggest_taps(net(2), net(4))
    assert paths(pairs)[:2] == [("c", "c"), ("d", "d")]
    assert pairs[0].student_shape == (None, None, None, 2)
    assert "?x?x2 from ?x?x4" in str(pairs[0])


def test_outputs_are_no_features():
    """Where an output is known, the last vector in front of it is suggested."""

    def net(name):
        inputs = keras.Input((4,))
        hidden = layers.Dense(6, name="hidden")(inputs)
        outputs = [layers.Dense(3, name=x)(hidden) for x in ("a", "b", "c")]
        return keras.Model(inputs, outputs, name=name)

    assert paths(kd.suggest_taps(net("s"), net("t"))) == [("hidden", "hidden")]


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_channels_first_is_refused(side):
    def net(data_format, shape):
        how = {"data_format": data_format}
        inputs = keras.Input(shape)
        x = layers.Conv2D(4, 3, padding="same", name="first", **how)(inputs)
        x = layers.Conv2D(8, 3, 2, padding="same", name="second", **how)(x)
        x = layers.GlobalAveragePooling2D(name="pool", **how)(x)
        return keras.Model(inputs, layers.Dense(3)(x), name=data_format)

    first, last = net("channels_first", (3, 8, 8)), net("channels_last", (8, 8, 3))
    pair = (first, last) if side == "student" else (last, first)
    message = r"channels_first \(layer 'first'\).*data_format='channels_last'"
    for suggest in (kd.suggest_taps, kd.suggest_terms):
        with pytest.raises(ValueError, match=message):
            suggest(*pair)
