"""Which part of a batch each model takes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from tests.formulas import softmax

RNG = np.random.default_rng(0)
IMAGES = RNG.random((8, 6, 6, 1)).astype("float32")
X = RNG.normal(size=(8, 4)).astype("float32")


def dense(seed=0, shape=(6, 6, 1)):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs)))


def of_two(seed=0):
    """Return a net of two named inputs of one shape, which a swap would go unnoticed."""
    keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input((4,), name=name) for name in ("words", "mask")}
    x = layers.Concatenate()([inputs["words"], inputs["mask"]])
    return keras.Model(inputs, layers.Dense(3)(x))


def divergence(teacher, student, temperature=4.0):
    p, q = (softmax(z.astype("float64") / temperature) for z in (teacher, student))
    return temperature**2 * (p * np.log(p / q)).sum(-1).mean()


def history(distiller, x, epochs=1, **arguments):
    distiller.compile(keras.optimizers.SGD(0.0))
    arguments = {"batch_size": 8, "verbose": 0, **arguments}
    return distiller.fit(x, epochs=epochs, **arguments).history["soft_target"]


def distill(student, teacher, **arguments):
    return kd.Distiller(student, teacher, label_weight=0.0, **arguments)


class Drawn(layers.Layer):
    """Add one random number to a batch, and count the calls, in training form only."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)
        self.calls = []

    def call(self, x, training=False):
        self.calls.append(bool(training))
        return x + keras.random.normal((), seed=self.seed) if training else x


def test_a_list_of_keys_is_a_dict_by_the_names_of_the_inputs():
    """Keras takes a list for a dict in the order of the sorted names."""
    student, teacher = of_two(), of_two(1)
    data = {"words": X, "mask": X[::-1].copy(), "other": X[:, :1]}
    own = {name: data[name] for name in ("words", "mask")}
    expected = divergence(teacher.predict(own), student.predict(own))
    names = ["words", "mask"]
    both = {"student_inputs": names, "teacher_inputs": names[::-1]}
    for arguments in (both, {"inputs": names}):
        distiller = distill(student, teacher, **arguments)
        assert history(distiller, data)[0] == pytest.approx(expected, rel=1e-4)
        np.testing.assert_array_equal(distiller.predict(data), student.predict(own))


def test_a_dict_names_the_inputs_of_a_model():
    student, teacher = of_two(), of_two(1)
    data = {"a": X, "b": 2 * X}
    own = {"words": X, "mask": 2 * X}
    expected = divergence(teacher.predict(own), student.predict(own))
    distiller = distill(student, teacher, inputs={"words": "a", "mask": "b"})
    assert history(distiller, data)[0] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match=r"\['words', 'mask'\].*\['a', 'b'\].*dict"):
        distill(student, teacher, student_inputs=["a", "b"]).predict(data)


def test_a_function_selects():
    student, teacher = dense(), dense(1)
    distiller = distill(student, teacher, teacher_inputs=lambda x: 1.0 - x)
    expected = divergence(teacher.predict(1.0 - IMAGES), student.predict(IMAGES))
    assert history(distiller, IMAGES)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("wrapped", [False, True])
def test_layers_of_the_student_run_in_training_form_in_fit_alone(wrapped):
    layer = Drawn()
    given = keras.Sequential([layer]) if wrapped else layer
    student = dense()
    distiller = distill(student, dense(1), student_inputs=given)
    assert len(set(history(distiller, IMAGES, epochs=3))) == 3
    assert True in layer.calls
    np.testing.assert_array_equal(distiller.predict(IMAGES), student.predict(IMAGES))


def test_layers_of_the_teacher_run_in_inference_form():
    layer = Drawn()
    distiller = distill(dense(), dense(1), teacher_inputs=layer)
    assert len(set(history(distiller, IMAGES, epochs=3))) == 1
    assert set(layer.calls) == {False}


@pytest.mark.parametrize("given", ["inputs", "both sides", "within lists"])
def test_a_layer_of_both_runs_once(given):
    """Two equal nets that see the same have no divergence, whatever is drawn."""
    student = dense()
    teacher = keras.models.clone_model(student)
    teacher.set_weights(student.get_weights())
    layer = Drawn()
    arguments = {
        "inputs": {"inputs": layer},
        "both sides": {"student_inputs": layer, "teacher_inputs": layer},
        "within lists": {"student_inputs": [layer], "teacher_inputs": [layer]},
    }[given]
    distiller = distill(student, teacher, **arguments)
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    logs = distiller.fit(IMAGES, epochs=2, batch_size=8, verbose=0).history
    assert layer.calls.count(True) == 2
    assert logs["soft_target"] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_two_random_layers_get_one_warning():
    sides = {"student_inputs": layers.Dropout(0.5), "teacher_inputs": Drawn()}
    distiller = distill(dense(), dense(1), **sides)
    with pytest.warns(UserWarning, match=r"see different\s+inputs.*inputs=") as found:
        history(distiller, IMAGES)
        history(distiller, IMAGES)
    assert sum("see different" in str(warning.message) for warning in found) == 1


class Preprocessed(keras.Model):
    """A net that halves its inputs in its own `fit`, as a task of keras_hub would."""

    def __init__(self):
        super().__init__()
        self.head = keras.Sequential([layers.Flatten(), layers.Dense(3)])
        self(IMAGES)

    def call(self, x):
        return self.head(x)

    def preprocess_samples(self, x, y=None, sample_weight=None):
        return keras.utils.pack_x_y_sample_weight(x / 2.0, y, sample_weight)


@pytest.mark.parametrize("part", ["inputs", "student_inputs", "teacher_inputs"])
@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_a_random_layer_in_front_of_preprocessing_is_not_backed_up(
    tmp_path, part, save_freq
):
    """A layer of the teacher runs in inference form, and draws nothing."""
    layer = layers.RandomFlip("horizontal", name="flip")
    distiller = distill(Preprocessed(), Preprocessed(), **{part: layer})
    backup = kd.BackupAndRestore(tmp_path / "backup", save_freq=save_freq)
    arguments = {"callbacks": [backup], "shuffle": False}
    if part == "teacher_inputs":
        history(distiller, IMAGES, **arguments)
        return
    with pytest.raises(ValueError, match=r"cannot resume the random layers \['flip'\]"):
        history(distiller, IMAGES, **arguments)
    history(distiller, IMAGES)


def test_parts_are_selected_from_the_shared_inputs():
    student, teacher = dense(shape=(3, 3, 1)), dense(1)
    data = {"image": IMAGES, "sample_id": np.arange(8)}

    def smaller(x):
        return {"large": x["image"], "small": x["image"][:, ::2, ::2]}

    distiller = distill(
        student,
        teacher,
        inputs=smaller,
        student_inputs="small",
        teacher_inputs="large",
        sample_ids="sample_id",
    )
    small = IMAGES[:, ::2, ::2]
    expected = divergence(teacher.predict(IMAGES), student.predict(small))
    assert history(distiller, data)[0] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_array_equal(distiller.predict(data), student.predict(small))


def test_a_layer_that_is_not_built_is_built():
    distiller = distill(
        dense(shape=(6, 6, 2)), dense(1), student_inputs=layers.Dense(2)
    )
    distiller.compile(keras.optimizers.SGD(0.1))
    distiller.fit(IMAGES, verbose=0, epochs=2)
    assert any(v.path.startswith("dense") for v in distiller.trainable_variables)


def test_a_trained_layer_of_the_teacher_is_refused():
    layer = layers.Dense(1)
    layer.build((None, 6, 6, 1))
    for side in ("teacher_inputs", "inputs"):
        with pytest.raises(ValueError, match="no gradient trains"):
            history(distill(dense(), dense(1), **{side: layer}), IMAGES)


def test_selections_are_saved(tmp_path):
    layer = layers.RandomFlip(seed=1)
    distiller = distill(dense(), dense(1), inputs=layer)
    distiller.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    assert isinstance(loaded.shared_inputs, layers.RandomFlip)
    own = kd.SelfDistiller(dense_with_layer(), ["h"], inputs="image")
    own.save(tmp_path / "s.keras")
    assert keras.saving.load_model(tmp_path / "s.keras").shared_inputs == "image"


def dense_with_layer():
    inputs = keras.Input((4,))
    hidden = layers.Dense(4, "relu", name="h")(inputs)
    return keras.Model(inputs, layers.Dense(3)(hidden))


def test_a_self_distiller_takes_a_part():
    net = dense_with_layer()
    distiller = kd.SelfDistiller(net, ["h"], inputs="x")
    distiller.compile(keras.optimizers.SGD(0.0))
    distiller.fit({"x": X, "other": X}, verbose=0)
    np.testing.assert_array_equal(distiller.predict(X)["deepest"], net.predict(X))


def test_copies_of_peers_see_what_the_peers_see():
    """With `refresh` the copies run apart from the peers, on the same random inputs."""
    peers = [dense(), dense()]
    peers[1].name = "second"
    layer = Drawn()
    mutual = kd.MutualDistiller(peers, label_weight=0.0, refresh=1, peer_inputs=layer)
    mutual.compile(keras.optimizers.SGD(0.0))
    logs = mutual.fit(IMAGES, epochs=2, verbose=0).history
    assert logs["loss"] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_an_evaluation_takes_plain_inputs_and_needs_no_part_of_the_teacher():
    student, teacher = dense(), dense(1)
    keys = {"student_inputs": "image", "teacher_inputs": "large"}
    distiller = kd.Distiller(student, teacher, **keys)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), loss)
    student.compile(keras.optimizers.SGD(0.0), loss)
    labels = np.arange(8) % 3
    expected = student.evaluate(IMAGES, labels, verbose=0)
    data = {"image": IMAGES, "large": IMAGES}
    for x in (IMAGES, {"image": IMAGES}):
        logs = distiller.fit(data, labels, validation_data=(x, labels), verbose=0)
        assert logs.history["val_loss"][0] == pytest.approx(expected, rel=1e-6)
        assert distiller.evaluate(x, labels, verbose=0) == expected
        np.testing.assert_array_equal(distiller.predict(x), student.predict(IMAGES))
    with pytest.raises(ValueError, match="no part 'image'"):
        distiller.fit(IMAGES, labels, verbose=0)


@pytest.mark.parametrize("kind", ["arrays", "tf.data", "generator"])
def test_weights_without_labels_weigh_the_terms(kind):
    student, teacher = dense(), dense(1)
    weights = np.linspace(0.0, 1.0, 8).astype("float32")
    p, q = (
        softmax(m.predict(IMAGES).astype("float64") / 4) for m in (teacher, student)
    )
    expected = (weights * 16.0 * (p * np.log(p / q)).sum(-1)).mean()
    distiller = distill(student, teacher)
    if kind == "arrays":
        found = history(distiller, IMAGES, sample_weight=weights)
    else:
        batch = IMAGES, None, weights
        stream = (batch for _ in range(3))
        data = tf.data.Dataset.from_tensors(batch) if kind == "tf.data" else stream
        found = history(distiller, data, batch_size=None)
    assert found[0] == pytest.approx(expected, rel=1e-4)
