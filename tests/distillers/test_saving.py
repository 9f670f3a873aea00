"""Save, load, go on: as any Keras model, without the teacher in the file."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from tests.nets import conv_pair


def make(terms, **compile_arguments):
    keras.utils.set_random_seed(7)
    student, teacher = conv_pair()
    distiller = kd.Distiller(student, teacher, terms=terms, label_weight=0.1)
    distiller.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **compile_arguments,
    )
    return distiller, teacher


def assert_same(first, second):
    assert len(first.variables) == len(second.variables)
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


@pytest.mark.long
def test_loaded_it_goes_on_as_if_nothing_had_been(three_taps, images, tmp_path):
    whole, _ = make(three_taps)
    whole.fit(*images, epochs=4, shuffle=False, verbose=0)
    half, teacher = make(three_taps)
    half.fit(*images, epochs=2, shuffle=False, verbose=0)
    half.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    np.testing.assert_array_equal(
        loaded.predict(images[0], verbose=0), half.predict(images[0], verbose=0)
    )
    with pytest.raises(ValueError, match="set_teacher"):
        loaded.fit(*images, verbose=0)
    loaded.set_teacher(teacher)
    loaded.fit(*images, epochs=2, shuffle=False, verbose=0)
    assert_same(whole, loaded)
    for a, b in zip(whole.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_the_file_holds_no_teacher(three_taps, images, tmp_path):
    distiller, _ = make(three_taps)
    wide = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    wide.add(keras.layers.Dense(4000, "relu"))
    wide.add(keras.layers.Dense(3))
    heavy = kd.Distiller(conv_pair()[0], wide)
    heavy.compile("sgd", "mse")
    heavy.save(tmp_path / "heavy.keras")
    # The teacher alone is 4 * 4000 * 65 bytes.
    assert (tmp_path / "heavy.keras").stat().st_size < 200_000
    own = sum(int(np.prod(v.shape)) for v in distiller.student.variables)
    adapters = 4 * 12 + 12 + 4 * 6 + 6 + 8 * 12 + 12
    scalars = 1 + 4 + 1
    assert sum(int(np.prod(v.shape)) for v in distiller.variables) == (
        own + adapters + scalars
    )
    distiller.save_weights(tmp_path / "distiller.weights.h5")
    assert_weights_come_back(distiller, three_taps, tmp_path / "distiller.weights.h5")


def assert_weights_come_back(distiller, terms, file):
    other, _ = make(terms)
    for variable in other.variables:
        variable.assign(variable + 1)
    other.load_weights(file)
    assert_same(distiller, other)


def test_the_student_is_a_plain_keras_model(three_taps, images, tmp_path):
    distiller, _ = make(three_taps)
    distiller.fit(*images, verbose=0)
    distiller.student.save(tmp_path / "student.keras")
    student = keras.saving.load_model(tmp_path / "student.keras")
    assert len(student.variables) == len(distiller.student.variables)
    np.testing.assert_array_equal(
        student.predict(images[0], verbose=0), distiller.predict(images[0], verbose=0)
    )


def test_everything_that_a_distiller_is_given_is_loaded(tmp_path):
    x = {"a": np.ones((4, 4), "float32"), "b": np.ones((4, 6), "float32")}
    x["id"] = np.arange(4)
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    teacher = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    falling = keras.optimizers.schedules.PolynomialDecay(4.0, 10, 1.0)
    soft = kd.Term(kd.losses.SoftTarget(falling), weight=falling, name="soft")
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[soft],
        label_weight=falling,
        student_inputs="a",
        teacher_inputs="b",
        sample_ids="id",
    )
    distiller.compile("sgd")
    distiller.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    given, found = distiller.get_config(), loaded.get_config()
    assert {key: given[key] for key in given if key != "student"} == {
        key: found[key] for key in found if key != "student"
    }
    loaded.set_teacher(teacher)
    for model in (distiller, loaded):
        model.fit(x, epochs=3, verbose=0)
    assert_same(distiller, loaded)


def test_an_adapter_given_by_the_user_is_loaded(images, cross_entropy, tmp_path):
    student, teacher = conv_pair()
    adapter = keras.layers.Conv2D(12, 1, name="mine")
    hint = kd.Term(kd.losses.Hint(), "stack2", "stack2", 1.0, adapter)
    distiller = kd.Distiller(student, teacher, terms=[hint])
    distiller.compile("sgd", cross_entropy)
    distiller.fit(*images, verbose=0)
    distiller.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    assert_same(distiller, loaded)
    assert loaded.terms["hint"].student_adapters[0].name == "mine"


def test_another_teacher_must_fit(three_taps, tmp_path):
    distiller, _ = make(three_taps)
    distiller.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    with pytest.raises(ValueError, match="was built for a teacher whose"):
        loaded.set_teacher(conv_pair(teacher_filters=5)[1])


def test_checkpoint_tensorboard_and_early_stopping(three_taps, images, tmp_path):
    distiller, _ = make(three_taps)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=1e9)
    checkpoint = tmp_path / "{epoch}.keras"
    distiller.fit(
        *images,
        validation_data=images,
        epochs=9,
        verbose=0,
        callbacks=[
            stop,
            keras.callbacks.ModelCheckpoint(checkpoint),
            keras.callbacks.TensorBoard(tmp_path / "logs"),
        ],
    )
    assert stop.stopped_epoch == 1
    last = keras.saving.load_model(tmp_path / "2.keras")
    assert_same(distiller, last)
    events = list((tmp_path / "logs" / "train").glob("events*"))
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events[0]))
        for value in event.summary.value
    }
    assert {"epoch_loss", "epoch_label_loss", "epoch_hint"} <= tags


def test_validation_logs_are_the_students(three_taps, images):
    distiller, _ = make(three_taps)
    history = distiller.fit(*images, validation_data=images, verbose=0).history
    assert {name for name in history if name.startswith("val_")} == {
        "val_loss",
        "val_accuracy",
    }


def test_another_teacher_teaches_from_then_on(nets, images):
    """A step that is compiled already would go on with the first one."""
    student, first = nets
    distiller = kd.Distiller(student, first, label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    before = distiller.fit(images[0], verbose=0).history["soft_target"][0]
    other = keras.models.clone_model(first)
    distiller.set_teacher(other)
    found = distiller.fit(images[0], verbose=0).history["soft_target"][0]
    fresh = kd.Distiller(student, other, label_weight=0.0)
    fresh.compile(keras.optimizers.SGD(0.0))
    expected = fresh.fit(images[0], verbose=0).history["soft_target"][0]
    assert found == pytest.approx(expected, rel=1e-5)
    assert before != pytest.approx(expected, rel=1e-2)


def test_summary(three_taps, images):
    distiller, _ = make(three_taps)
    distiller.fit(*images, verbose=0)
    lines = []
    distiller.summary(print_fn=lines.append)
    assert "student" in "\n".join(lines)


SCALERS = [
    keras.applications.mobilenet_v2.preprocess_input,
    # Two modules export it.
    keras.applications.resnet.preprocess_input,
    keras.ops.relu,
]


@pytest.mark.parametrize("scale", SCALERS)
@pytest.mark.parametrize("side", ["student_inputs", "teacher_inputs", "inputs"])
def test_a_function_of_keras_is_loaded(scale, side, tmp_path):
    models = [kd.models.conv_net((8, 8, 3), 4, filters=(2,)) for _ in range(2)]
    distiller = kd.Distiller(*models, **{side: scale})
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    assert again.get_config()[side] == distiller.get_config()[side]
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    found, expected = again.predict(x, verbose=0), distiller.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_functions_of_keras_among_the_inputs_of_peers(tmp_path):
    peers = [kd.models.conv_net((8, 8, 3), 4, filters=(2,), name=name) for name in "ab"]
    mutual = kd.MutualDistiller(peers, peer_inputs=[SCALERS[0], None])
    again = kd.MutualDistiller.from_config(mutual.get_config())
    assert again.peer_inputs[0] is SCALERS[0]
