"""Recasting: which blocks each stage trains, mixed networks, invalid blocks."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BLOCKS = [("stack1", "stack1"), ("stack2", "stack2"), ("stack3", "stack3")]


def net(name, widths, depth=1):
    """Stacks of convolutions; each ends in `stack1`, `stack2`, ..."""
    keras.utils.set_random_seed(len(name))
    x = inputs = keras.Input((8, 8, 1))
    for block, width in enumerate(widths, 1):
        for i in range(depth):
            x = layers.Conv2D(width, 3, padding="same", name=f"conv{block}_{i}")(x)
            x = layers.BatchNormalization(name=f"norm{block}_{i}")(x)
            x = layers.ReLU(name=f"stack{block}" if i == depth - 1 else None)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name=name)


def images(count=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    return x, rng.integers(0, 3, count).astype("int32")


def recast(student, teacher, blocks=BLOCKS, **arguments):
    arguments = {"epochs": 2, "fine_tuning_epochs": 1, **arguments}
    stages = kd.recasting_stages(student, teacher, blocks, **arguments)
    distiller = kd.Distiller(student, teacher)
    distiller.compile("adam", CROSS_ENTROPY)
    histories = kd.fit_stages(distiller, stages, *images(), batch_size=8, verbose=0)
    return stages, histories


@pytest.mark.long
def test_blocks_are_trained_one_by_one():
    student, teacher = net("student", (4, 6, 6)), net("teacher", (4, 6, 6), 2)
    trained = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            trained.append(
                {v.path.split("/")[-2] for v in self.model.trainable_variables}
            )

    stages = kd.recasting_stages(student, teacher, BLOCKS)
    for stage in stages:
        stage.callbacks.append(Watch())
    distiller = kd.Distiller(student, teacher)
    distiller.compile("adam", CROSS_ENTROPY)
    kd.fit_stages(distiller, stages, *images(), verbose=0)
    blocks = [{f"conv{i}_0", f"norm{i}_0"} for i in (1, 2, 3)]
    assert trained == [*blocks, set().union(*blocks) | {"logits"}]


@pytest.mark.long
def test_a_block_learns_to_reproduce_the_teachers():
    student, teacher = net("student", (4, 6, 6)), net("teacher", (4, 6, 6), 2)
    teacher.compile(keras.optimizers.Adam(0.01), CROSS_ENTROPY)
    teacher.fit(*images(), batch_size=8, epochs=25, verbose=0)
    _, histories = recast(
        student, teacher, epochs=20, optimizer=keras.optimizers.Adam(0.01)
    )
    for history in histories[:3]:
        assert history["hint"][-1] < 0.7 * history["hint"][0]


def test_blocks_of_different_shapes_are_recast_together():
    student, teacher = net("student", (2, 5, 6)), net("teacher", (4, 6, 6))
    stages = kd.recasting_stages(student, teacher, BLOCKS)
    assert [stage.name for stage in stages] == ["recast stack3", "fine-tuning"]
    student = net("student", (4, 5, 6))
    stages = kd.recasting_stages(student, teacher, BLOCKS)
    assert [s.name for s in stages] == ["recast stack1", "recast stack3", "fine-tuning"]
    assert [str(tap) for tap in stages[1].trains] == ["stack1", "stack3"]


def test_the_logit_loss_of_the_fine_tuning_is_a_mean_over_the_classes():
    student, teacher = net("student", (4, 6, 6)), net("teacher", (4, 6, 6), 2)
    *_, last = kd.recasting_stages(student, teacher, BLOCKS, logit_weight=0.7)
    distiller = kd.Distiller(
        student, teacher, terms=last.terms, label_weight=last.label_weight
    )
    distiller.compile("sgd", CROSS_ENTROPY)
    x, y = images()
    z_s = np.float64(keras.ops.convert_to_numpy(student(x, training=True)))
    z_t = np.float64(teacher.predict(x, verbose=0))
    labels = np.log(np.exp(z_s).sum(-1)) - z_s[np.arange(len(y)), y]
    logs = distiller.train_on_batch(x, y, return_dict=True)
    expected = labels.mean() + 0.7 * np.mean((z_t - z_s) ** 2)
    np.testing.assert_allclose(float(logs["loss"]), expected, rtol=1e-4)


def test_a_mixed_network_joins_the_student_with_the_rest_of_the_teacher():
    student, teacher = net("student", (4, 5, 6)), net("teacher", (4, 6, 6), 2)
    mixed = kd.mixed_network(student, teacher, "stack1", "stack1")
    x = images()[0]
    maps = keras.Model(student.inputs, student.get_layer("stack1").output).predict(
        x, verbose=0
    )
    for layer in teacher.layers[
        teacher.layers.index(teacher.get_layer("stack1")) + 1 :
    ]:
        maps = layer(maps, training=False)
    maps = keras.ops.convert_to_numpy(maps)
    np.testing.assert_allclose(mixed.predict(x, verbose=0), maps, atol=1e-5)
    kd.copy_weights(student, teacher, ["logits"])
    kernels = [m.get_layer("logits").get_weights()[0] for m in (student, teacher)]
    np.testing.assert_array_equal(*kernels)


def bypassed():
    x = inputs = keras.Input((8, 8, 1))
    y = layers.Conv2D(4, 3, padding="same", name="stack1")(x)
    y = layers.GlobalAveragePooling2D()(layers.Concatenate()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(y))


BAD = {
    "no blocks": (
        lambda: kd.recasting_stages(bypassed(), bypassed(), []),
        ["no blocks"],
    ),
    "no shape for the last": (
        lambda: kd.recasting_stages(net("a", (4, 6, 5)), net("b", (4, 6, 6)), BLOCKS),
        ["no matching shape", "(8, 8, 5)", "(8, 8, 6)"],
    ),
    "no such layer": (
        lambda: kd.recasting_stages(
            net("a", (4,)), net("b", (4,)), [("stack1", "stack5")]
        ),
        ["no layer 'stack5'"],
    ),
    "mixed, of different shapes": (
        lambda: kd.mixed_network(net("a", (3,)), net("b", (4,)), "stack1", "stack1"),
        ["can't be joined"],
    ),
    "a bypass": (
        lambda: kd.mixed_network(net("a", (4,)), bypassed(), "stack1", "stack1"),
        ["bypasses 'stack1'"],
    ),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_invalid_blocks_raise(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value)
