"""Reference networks: stable layer names, and numbers of parameters counted by hand."""

import keras
import numpy as np
import pytest

import keras_distill as kd


def test_mlp():
    model = kd.models.mlp((28, 28, 1), 10, units=(800, 800), dropout=0.1, max_norm=3.0)
    assert model.count_params() == 785 * 800 + 801 * 800 + 801 * 10
    names = [layer.name for layer in model.layers[1:]]
    assert names == ["flatten", "hidden1", "dropout1", "hidden2", "dropout2", "logits"]
    assert model.get_layer("hidden1").kernel_constraint.max_value == 3.0


def resnet20_parameters():
    """Count those of He et al.'s ResNet-20, with 1x1 shortcuts where channels change."""

    def conv(size, before, after):
        return size * size * before * after + 4 * after

    total, before = conv(3, 3, 16), 16
    for after in (16, 32, 64):
        for _ in range(3):
            total += conv(3, before, after) + conv(3, after, after)
            total += conv(1, before, after) if before != after else 0
            before = after
    return total + 65 * 10


def test_resnet():
    model = kd.models.resnet((32, 32, 3), 10, depth=20)
    assert model.count_params() == resnet20_parameters()
    shapes = [model.get_layer(f"stack{i}").output.shape for i in (1, 2, 3)]
    assert shapes == [(None, 32, 32, 16), (None, 16, 16, 32), (None, 8, 8, 64)]
    with pytest.raises(ValueError, match="6n \\+ 2"):
        kd.models.resnet((8, 8, 1), 10, depth=10)


def wide_resnet_parameters(blocks, widen):
    """Count a WRN's: normalization before convolutions, plain 1x1 shortcuts."""
    total, before = 9 * 3 * 16, 16
    for after in (16 * widen, 32 * widen, 64 * widen):
        for _ in range(blocks):
            total += 4 * before + 9 * before * after + 4 * after + 9 * after * after
            total += before * after if before != after else 0
            before = after
    return total + 4 * before + (before + 1) * 10


def test_wide_resnet():
    model = kd.models.wide_resnet((32, 32, 3), 10, depth=16, widen=2)
    assert model.count_params() == wide_resnet_parameters(2, 2)
    # The papers' tables list 0.7 million for WRN-16-2 and 0.2 million for WRN-16-1.
    assert round(model.count_params() / 1e6, 1) == 0.7
    small = kd.models.wide_resnet((32, 32, 3), 10, depth=16, widen=1)
    assert round(small.count_params() / 1e6, 1) == 0.2
    shapes = [model.get_layer(f"stack{i}").output.shape for i in (1, 2, 3)]
    assert shapes == [(None, 32, 32, 32), (None, 16, 16, 64), (None, 8, 8, 128)]
    with pytest.raises(ValueError, match="6n \\+ 4"):
        kd.models.wide_resnet((8, 8, 1), 10, depth=12)


def test_conv_net():
    model = kd.models.conv_net((8, 8, 1), 10, filters=(4, 8), convs_per_stack=2)
    convs = 9 * (1 * 4 + 4 * 4 + 4 * 8 + 8 * 8)
    assert model.count_params() == convs + 4 * (4 + 4 + 8 + 8) + 9 * 10
    assert model.get_layer("stack2").output.shape == (None, 4, 4, 8)
    assert len(kd.models.conv_net((8, 8, 1), 10, weight_decay=0.1).losses) == 3


def test_statistics_settle_within_a_few_epochs_of_small_data():
    """After 36 steps the accuracy in inference form is that in training form."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 384)
    x = rng.normal(size=(384, 8, 8, 1)).astype("float32")
    x += 2.0 * rng.normal(size=(4, 8, 8, 1))[y].astype("float32")
    model = kd.models.conv_net((8, 8, 1), 4, filters=(4, 8))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, batch_size=32, epochs=3, verbose=0)
    training, inference = (
        (np.argmax(model(x, training=form), -1) == y).mean() for form in (True, False)
    )
    assert training > 0.9 and inference > training - 0.05
    nets = [model, kd.models.resnet((8, 8, 1), 4, depth=8)]
    nets.append(kd.models.wide_resnet((8, 8, 1), 4, depth=10, widen=1))
    for net in nets:
        norms = [
            x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)
        ]
        assert norms and {norm.momentum for norm in norms} == {0.9}


def test_saved_and_loaded(tmp_path):
    model = kd.models.wide_resnet((8, 8, 1), 10, depth=10, widen=1)
    model.save(tmp_path / "model.keras")
    x = np.ones((2, 8, 8, 1), "float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(x), loaded(x))


@pytest.mark.parametrize(
    "model, ends",
    [
        (lambda: kd.models.mlp((4,), 3, units=(5,)), ["hidden1", "logits"]),
        (
            lambda: kd.models.conv_net((8, 8, 1), 3, filters=(2, 3)),
            ["stack1_conv1", "stack1", "stack2_pool", "stack2", "pool", "logits"],
        ),
        (
            lambda: kd.models.resnet((8, 8, 1), 3, depth=14, width=2),
            ["stem_conv", "stack1_block1_out", "stack1", "stack3", "pool", "logits"],
        ),
        (
            lambda: kd.models.vit((8, 8, 1), 3, width=6, depth=2, dropout=0.1),
            [
                "patches",
                "tokens",
                "block1_attention",
                "block1",
                "class_token",
                "logits",
            ],
        ),
        (
            lambda: kd.models.wide_resnet((8, 8, 1), 3, depth=16, widen=1),
            ["stem", "stack1_block1_add", "stack1", "stack3", "norm", "relu", "logits"],
        ),
    ],
    ids=["mlp", "conv_net", "resnet", "vit", "wide_resnet"],
)
def test_layer_names_follow_the_data_flow(model, ends):
    """Users tap these names; the last layer returns logits, without an activation."""
    model = model()
    names = [layer.name for layer in model.layers]
    indices = [names.index(end) for end in ends]
    assert indices == sorted(indices) and indices[-1] == len(names) - 1
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_depth_counts_the_layers_with_weights(depth):
    model = kd.models.resnet((8, 8, 1), 3, depth=depth, width=2)
    weighted = [
        layer.name
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
        and "shortcut" not in layer.name
    ]
    assert len(weighted) == depth
