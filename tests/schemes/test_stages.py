"""Stages: what each trains, freezes and runs, and where training resumes."""

import json

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.schemes.progress import Progress
from tests.nets import conv_pair

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def images(count=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    return x, rng.integers(0, 3, count).astype("int32")


def new_distiller(student=None, loss=CROSS_ENTROPY):
    keras.utils.set_random_seed(1)
    small, teacher = conv_pair()
    distiller = kd.Distiller(student or small, teacher)
    distiller.compile("adam", loss, metrics=["accuracy"])
    return distiller


def hint(tap="stack1"):
    return kd.Term(kd.losses.Hint(), tap, tap, weight=1.0)


def soft():
    return kd.Term(kd.losses.SoftTarget(3.0), weight=1.0)


def fitnets(**first):
    first = {"trains": "stack1", "label_weight": 0.0, "epochs": 3, **first}
    return [kd.Stage([hint()], **first), kd.Stage([soft()], epochs=2)]


def run(distiller, stages, **arguments):
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return kd.fit_stages(distiller, stages, *images(), **arguments)


def values(model):
    return {v.path: np.array(v) for v in model.variables}


def changed_layers(model, before, part=-2):
    """Return the layers whose variables changed, by a part of the variables' paths."""
    after = values(model)
    changed = (name for name in after if np.abs(after[name] - before[name]).max() > 0)
    return {name.split("/")[part] for name in changed}


def assert_same_weights(distiller, other):
    for a, b in zip(distiller.student.weights, other.student.weights, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-6)


def test_a_stage_trains_only_its_part():
    distiller = new_distiller()
    before = values(distiller.student)
    (history,) = run(distiller, fitnets()[:1])
    assert changed_layers(distiller.student, before) == {"conv1", "norm1"}
    assert history["hint"][-1] < history["hint"][0]
    assert set(history) == {"loss", "hint"}
    assert all(layer.trainable for layer in flatten_layers(distiller.student))


def test_a_pair_bounds_the_part_on_both_sides():
    distiller = new_distiller()
    before = values(distiller.student)
    stage = kd.Stage([hint("stack2")], trains=("stack1", "stack2"), label_weight=0.0)
    run(distiller, [stage])
    # In inference mode, the normalization of the first block does not change either.
    assert changed_layers(distiller.student, before) == {"conv2", "norm2"}


class FailsIfRun(keras.layers.Layer):
    """Raises an error if it is run, but not if it is traced."""

    def call(self, x):
        if hasattr(x, "numpy"):
            raise RuntimeError("The rest of the student ran.")
        return x


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="only TensorFlow's tensors distinguish a run from a trace",
)
def test_layers_after_the_tap_do_not_run():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", name="stack1")(inputs)
    x = FailsIfRun()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    student = keras.Model(inputs, keras.layers.Dense(3)(x))
    distiller = new_distiller(student)
    distiller.compile("adam", CROSS_ENTROPY, run_eagerly=True)
    run(distiller, fitnets()[:1])
    with pytest.raises(RuntimeError, match="rest of the student ran"):
        run(distiller, fitnets()[1:])


@pytest.mark.long
def test_the_second_stage_starts_from_the_firsts_weights():
    """Two stages are equivalent to two distillers, trained one after the other."""
    stages = [
        kd.Stage([hint()], label_weight=0.0, epochs=3),
        kd.Stage([soft()], epochs=2),
    ]
    # The widths are equal, so no adapter draws random weights.
    staged, by_hand = new_distiller(wide_student()), new_distiller(wide_student())
    run(staged, stages)
    for terms, weight, epochs in (([hint()], 0.0, 3), ([soft()], 1.0, 2)):
        stage = kd.Distiller(
            by_hand.student, by_hand.teacher, terms=terms, label_weight=weight
        )
        stage.compile("adam", CROSS_ENTROPY if weight else None)
        stage.fit(*images(), batch_size=8, shuffle=False, epochs=epochs, verbose=0)
    assert_same_weights(staged, by_hand)


def wide_student():
    """Return a student of the teacher's widths, always with the same weights."""
    keras.utils.set_random_seed(2)
    return conv_pair(6, 6)[0]


def test_labels_alone_are_a_plain_fit():
    staged, plain = new_distiller(), new_distiller()
    run(staged, [kd.Stage([], epochs=2)])
    plain.student.compile("adam", CROSS_ENTROPY)
    plain.student.fit(*images(), batch_size=8, shuffle=False, epochs=2, verbose=0)
    assert_same_weights(staged, plain)


def test_a_stage_without_terms_is_the_distiller_itself():
    distiller, plain = new_distiller(), new_distiller()
    (history,) = run(distiller, [kd.Stage(epochs=2)])
    plain.fit(*images(), batch_size=8, shuffle=False, epochs=2, verbose=0)
    assert_same_weights(distiller, plain)
    assert {"soft_target", "accuracy"} <= set(history)


@pytest.mark.long
def test_early_stopping_ends_only_its_stage():
    stop = keras.callbacks.EarlyStopping("hint", min_delta=1e9, mode="min")
    first, second = run(new_distiller(), fitnets(callbacks=[stop], epochs=9))
    assert len(first["loss"]) == 2 and len(second["loss"]) == 2


@pytest.mark.long
def test_factor_transfer_trains_the_paraphraser_first():
    distiller = new_distiller()
    paraphraser = kd.adapters.Paraphraser(0.5)
    factors = kd.Term(kd.losses.FactorTransfer(paraphraser), "stack2", "stack2", 50.0)
    stages = [
        kd.ParaphraserStage(paraphraser, "stack2", epochs=4),
        kd.Stage([factors], epochs=4),
    ]
    first, second = run(distiller, stages)
    assert first["loss"][-1] < first["loss"][0]
    assert second["factor_transfer"][-1] < second["factor_transfer"][0]
    assert not paraphraser.trainable
    with pytest.raises(ValueError, match=r"begin with a kd\.ParaphraserStage"):
        fresh = kd.losses.FactorTransfer(kd.adapters.Paraphraser(0.5))
        run(new_distiller(), [kd.Stage([kd.Term(fresh, "stack2", "stack2")])])


def test_the_paraphraser_learns_what_the_teacher_sees_in_a_step():
    """That is after `inputs=`, which both models select from."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0.0, 255.0, (32, 8, 8, 1)).astype("float32")
    student, teacher = conv_pair()
    scale = keras.layers.Rescaling(1 / 255)
    distiller = kd.Distiller(student, teacher, inputs=scale, label_weight=0.0)
    distiller.compile("sgd")
    weights = []
    for given in ("by a stage", "by hand"):
        keras.utils.set_random_seed(5)
        paraphraser = kd.adapters.Paraphraser(0.5)
        if given == "by a stage":
            stage = kd.ParaphraserStage(paraphraser, "stack2", epochs=1)
            kd.fit_stages(distiller, [stage], images, shuffle=False, verbose=0)
        else:
            scaled = images / 255
            paraphraser.train_on(
                teacher, "stack2", scaled, epochs=1, shuffle=False, verbose=0
            )
        weights.append(paraphraser.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


class Stop(keras.callbacks.Callback):
    """Stops in the second stage."""

    def on_epoch_end(self, epoch, logs=None):
        if "soft_target" in logs:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.long
def test_it_resumes_in_the_interrupted_stage(tmp_path, stopped):
    """After an interruption in the second stage, the first is not trained again."""
    expected = new_distiller()
    histories = run(expected, fitnets())
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            run(new_distiller(), fitnets(), backup=tmp_path, callbacks=[Stop()])
        assert len(json.loads((tmp_path / "0.json").read_text())) == len(
            histories[0]["hint"]
        )
    distiller = new_distiller()
    resumed = run(distiller, fitnets(), backup=tmp_path)
    # The history is that of all epochs, those before the interruption too.
    assert resumed == histories
    again = new_distiller()
    assert run(again, fitnets(), backup=tmp_path) == resumed
    weights = [x.student.weights for x in (distiller, again, expected)]
    for a, b, c in zip(*weights, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))
        np.testing.assert_array_equal(np.array(a), np.array(c))
    with pytest.raises(ValueError, match="another scheme"):
        run(new_distiller(), fitnets(epochs=5), backup=tmp_path)


def test_one_bar_shows_all_stages(capsys):
    run(new_distiller(), fitnets(), verbose=1)
    output = capsys.readouterr().out
    assert "Stage 1 of 2: hint" in output and "Stage 2 of 2: labels, soft_t" in output
    assert "5/5 epochs" in output and "accuracy" in output
    # Before the end: what is left; at the end: what it took.
    times = [line.count(" left") for line in output.splitlines() if "/5 epochs" in line]
    assert sum(times) == 4 and output.splitlines()[-1].count(" in all") == 1


def test_verbose_0_is_silent(capsys):
    run(new_distiller(), fitnets(), verbose=0)
    assert capsys.readouterr().out == ""


def test_the_bar_advances_within_epochs_and_past_those_of_an_earlier_run():
    progress = Progress(10, 0)
    progress.set_params({"steps": 4})
    with progress.training("first", 6):
        # The first four epochs are those of an earlier run.
        progress.on_epoch_begin(4)
        assert (progress.bar.done, progress.bar.skipped) == (4, 4)
        for batch, done in ((0, 4.25), (2, 4.75), (1, 4.75)):
            progress.on_train_batch_end(batch)
            assert progress.bar.done == done
        progress.on_train_batch_end(3)
        assert 4.99 < progress.bar.done < 5
        progress.on_epoch_end(4)
        assert progress.bar.done == 5
    # Early stopping left out the sixth.
    assert (progress.bar.done, progress.bar.skipped) == (6, 5)
    progress.set_params({"steps": None})
    with progress.training("second", 4):
        for epoch, done in ((0, 6), (1, 7.5)):
            progress.on_epoch_begin(epoch)
            progress.on_train_batch_end(0)
            # In the first epoch of data without a length it is not known how much is left.
            assert progress.bar.done == done
            progress.on_train_batch_end(1)
            progress.on_epoch_end(epoch)


@pytest.mark.long
def test_two_replicas_equal_one_on_the_global_batch(two_replicas):
    def train():
        keras.utils.set_random_seed(1)
        student, teacher = conv_pair(norm=False)
        distiller = kd.Distiller(student, teacher)
        distiller.compile("sgd", CROSS_ENTROPY)
        run(distiller, [kd.Stage([soft()], optimizer="sgd", trains="stack1", epochs=2)])
        return student.get_weights()

    one = train()
    with two_replicas.scope():
        two = train()
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_paraphraser_moves_alike_on_replicas(two_replicas):
    half, _ = images(8)

    def train():
        keras.utils.set_random_seed(1)
        paraphraser, (_, teacher) = kd.adapters.Paraphraser(), conv_pair(norm=False)
        history = paraphraser.train_on(
            *(teacher, "stack2", np.concatenate([half, half])),
            optimizer=keras.optimizers.SGD(0.1),
            batch_size=16,
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        return [*paraphraser.get_weights(), history.history["loss"]]

    one = train()
    with two_replicas.scope():
        two = train()
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def frozen_student():
    student = conv_pair()[0]
    student.trainable = False
    return student


BAD = {
    "no stages": (lambda: run(new_distiller(), []), ["no stages"]),
    "nothing to learn": (
        lambda: kd.Stage([], label_weight=0.0),
        ["nothing to learn", "label_weight"],
    ),
    "weights of zero": (
        lambda: kd.Stage(
            [kd.Term(kd.losses.SoftTarget(), weight=0.0)], label_weight=0.0
        ),
        ["nothing to learn"],
    ),
    "nothing to train": (
        lambda: run(new_distiller(frozen_student()), fitnets()),
        ["trains nothing", "no trainable weights in stack1"],
    ),
    "a reversed pair": (
        lambda: run(new_distiller(), fitnets(trains=("stack2", "stack1"))),
        ["trains nothing"],
    ),
    "no such layer": (
        lambda: run(new_distiller(), fitnets(trains="stack7")),
        ["no layer 'stack7'"],
    ),
    "three layers": (
        lambda: kd.Stage([soft()], trains=("a", "b", "c")),
        ["trains must be 'all'"],
    ),
    "no epochs": (lambda: kd.Stage([soft()], epochs=0), ["1 or more; got 0"]),
    "no loss": (
        lambda: run(new_distiller(loss=None), fitnets()),
        ["compiled without a loss", "label_weight=0"],
    ),
    "not compiled": (
        lambda: run(kd.Distiller(*conv_pair()), fitnets()),
        ["not compiled"],
    ),
    "a generator": (
        lambda: kd.fit_stages(new_distiller(), fitnets(), iter([images()])),
        ["generator ends"],
    ),
    "a negative weight": (lambda: kd.Stage([], label_weight=-1.0), ["0 or more"]),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_invalid_stages_raise_before_the_first_step(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value)


class Block(keras.layers.Layer):
    """A layer with a weight and a sublayer, which it calls or only reads weights from."""

    def __init__(self, calls=True, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.calls = keras.layers.Dense(4, name="inner"), calls

    def build(self, shape):
        self.inner.build(shape)
        self.gain = self.add_weight(shape=(4,), name="gain", initializer="ones")

    def call(self, x):
        if self.calls:
            return self.inner(x) * self.gain
        return (x @ self.inner.kernel + self.inner.bias) * self.gain


@pytest.mark.parametrize(
    ("trains", "blocks"), [("b1", {"b1"}), (("b1", "b2"), {"b2"}), ("b2", {"b1", "b2"})]
)
@pytest.mark.parametrize("calls", [True, False])
def test_weights_of_layers_with_sublayers_belong_to_the_part(trains, blocks, calls):
    x = keras.Input((8, 8, 1))
    flat = keras.layers.Dense(4, name="first", trainable=False)(
        keras.layers.Flatten()(x)
    )
    for name in ("b1", "b2", "b3"):
        flat = Block(calls, name=name)(flat)
    student = keras.Model(x, keras.layers.Dense(3, name="logits")(flat))
    distiller = new_distiller(student)
    before = values(distiller.student)
    run(distiller, [kd.Stage([], trains=trains)])
    assert changed_layers(distiller.student, before, part=0) == blocks
    assert len(distiller.student.trainable_variables) == 11, "all as before"


@pytest.mark.long
def test_images_without_labels_and_data_without_length():
    x, y = images()
    soft_alone = [kd.Stage([soft()], label_weight=0.0)]

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return x[:8], y[:8]

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        unlabeled = tf.data.Dataset.from_tensor_slices(x).batch(8)
        distiller = new_distiller()
        (history,) = kd.fit_stages(distiller, soft_alone, unlabeled, verbose=0)
        assert set(history) == {"loss", "soft_target"}
        # The same images, with labels that the stage does not use.
        other = new_distiller()
        run(other, soft_alone)
        assert_same_weights(distiller, other)
    distiller = new_distiller()
    distiller.fit(Endless(), steps_per_epoch=2, verbose=0)
    assert int(distiller.optimizer.iterations) == 2
    kd.fit_stages(distiller, soft_alone, Endless(), steps_per_epoch=3, verbose=0)


@pytest.mark.parametrize(
    "validation",
    [
        {"validation_split": 0.25},
        pytest.param({"validation_data": images()}, marks=pytest.mark.long),
    ],
    ids=["split", "data"],
)
def test_a_stage_without_labels_has_no_validation(validation):
    first, second = run(new_distiller(), fitnets(), **validation)
    assert not any(name.startswith("val") for name in first)
    assert "val_loss" in second


def test_a_split_holds_out_the_same_samples_in_all_stages():
    (x, y), weights = images(), np.linspace(0.5, 1.5, len(images()[0]))
    first = len(x) * 3 // 4
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0}
    distiller = new_distiller()
    split = kd.fit_stages(
        *(distiller, fitnets(), x, y),
        sample_weight=weights,
        validation_split=0.25,
        **arguments,
    )
    other = new_distiller()
    given = kd.fit_stages(
        *(other, fitnets(), x[:first], y[:first]),
        sample_weight=weights[:first],
        validation_data=(x[first:], y[first:], weights[first:]),
        **arguments,
    )
    assert split == given
    assert_same_weights(distiller, other)
    for bad, words in (
        ({"x": [0.0] * 8}, "of arrays"),
        ({"x": x[:1]}, "leaves 0 of 1"),
    ):
        with pytest.raises(ValueError, match=words):
            kd.fit_stages(distiller, fitnets(), validation_split=0.25, **bad)


def test_variables_that_were_frozen_stay_so():
    distiller = new_distiller()
    kernel = distiller.student.get_layer("logits").kernel
    kernel.trainable = False
    before = np.array(kernel)
    run(distiller, fitnets())
    assert not kernel.trainable
    np.testing.assert_array_equal(kernel, before)


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        ("sparse_categorical_crossentropy", lambda y: y, "takes probabilities"),
        (CROSS_ENTROPY, lambda y: y + 5, "Labels must lie in"),
        (CROSS_ENTROPY, lambda y: None, "the data have none"),
    ],
)
def test_labels_are_checked_before_the_first_stage(loss, labels, message):
    distiller, (x, y) = new_distiller(loss=loss), images()
    before = values(distiller.student)
    with pytest.raises(ValueError, match=message):
        kd.fit_stages(distiller, fitnets(), x, labels(y), verbose=0)
    for name, value in values(distiller.student).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_stage_of_a_paraphraser_refuses_a_preprocessor():
    class Task(keras.Sequential):
        preprocessor = staticmethod(lambda x: x)

        def preprocess_samples(self, x, y=None, sample_weight=None):
            return x, y, sample_weight

    nets = [
        make(
            [
                keras.Input((4,)),
                keras.layers.Dense(6, name="hidden"),
                keras.layers.Dense(3),
            ]
        )
        for make in (keras.Sequential, Task)
    ]
    distiller = kd.Distiller(*nets, label_weight=0.0)
    distiller.compile("sgd")
    stage = kd.ParaphraserStage(kd.adapters.Paraphraser(0.5), "hidden")
    with pytest.raises(ValueError, match=r"preprocessor of its own.*train_on"):
        kd.fit_stages(distiller, [stage], np.ones((4, 4), "float32"), verbose=0)


@pytest.mark.long
def test_histories_are_the_same_with_a_backup(nets, tmp_path):
    def histories(backup):
        student, teacher = nets
        distiller = kd.Distiller(keras.models.clone_model(student), teacher)
        distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
        images = np.zeros((4, *student.input_shape[1:]), "float32")
        halved = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        stage = kd.Stage([kd.Term(kd.losses.SoftTarget())], epochs=2)
        return kd.fit_stages(
            distiller,
            [stage],
            images,
            np.zeros(4, int),
            backup=backup,
            callbacks=[halved],
            verbose=0,
        )

    (plain,), (backed,) = histories(None), histories(tmp_path)
    assert set(plain) == set(backed) and len(backed["learning_rate"]) == 2
