"""A backup changes nothing of a run, and a killed run ends as one that was not.

Data of 12 batches, steps per execution that divide them and that don't, with and without
validation, callbacks with a state, and every kind of data that `fit` takes.
"""

import random

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.training.test_resuming import Stop, assert_same

pytestmark = pytest.mark.long

BATCHES, EPOCHS = 12, 4
ONE_STEP = keras.backend.backend() == "torch"
EXECUTIONS = [1] if ONE_STEP else [1, 4, 5]


def arrays(seed, count=4 * BATCHES):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 6)).astype("float32"), rng.integers(0, 3, count)


def stream(seed, **arguments):
    x, y = arrays(seed)
    return kd.data.batches(kd.data.Samples(x, y), 4, shuffle=True, **arguments)


class Parts(keras.utils.PyDataset):
    """Parts in an order that each epoch draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.x, self.y = arrays(0)
        self.generator = random.Random(0)
        self.order = list(range(BATCHES))

    def __len__(self):
        return BATCHES

    def __getitem__(self, i):
        rows = slice(4 * self.order[i], 4 * self.order[i] + 4)
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.generator.shuffle(self.order)


def make(executions=1):
    keras.utils.set_random_seed(1)
    layers = keras.layers

    def net(width, **noise):
        inputs = keras.Input((6,))
        x = layers.Dense(width, "relu", name="hidden")(inputs)
        x = layers.Dropout(0.3)(layers.BatchNormalization()(x)) if noise else x
        return keras.Model(inputs, layers.Dense(3)(x))

    terms = [kd.Term(kd.losses.SoftTarget(4.0)), hint()]
    distiller = kd.Distiller(net(5, noise=True), net(8), terms=terms)
    distiller.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=executions,
    )
    return distiller


def hint():
    return kd.Term(kd.losses.Hint(), student="hidden", teacher="hidden", weight=1.0)


def stateful():
    """Return callbacks that stop and reduce within the run, by what they have seen."""
    monitor = {"monitor": "loss", "min_delta": 10.0}
    return [
        keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.5, **monitor),
        keras.callbacks.EarlyStopping(
            patience=3, restore_best_weights=True, start_from_epoch=0, **monitor
        ),
    ]


def fit(data, callbacks, executions=1, **arguments):
    distiller = make(executions)
    x, y = data(), None
    if isinstance(x, tuple):
        x, y = x
        arguments["batch_size"] = 4
    distiller.fit(x, y, epochs=EPOCHS, verbose=0, callbacks=callbacks, **arguments)
    return distiller


def killed(
    data, folder, after, executions=1, save_freq="epoch", extra=list, **arguments
):
    """Return a distiller whose first run ended after some executions."""

    def backup():
        return kd.BackupAndRestore(folder, save_freq)

    with pytest.raises(KeyboardInterrupt):
        stop = Stop(after)
        fit(data, [backup(), *extra(), stop], executions, **arguments)
    return fit(data, [backup(), *extra()], executions, **arguments)


@pytest.mark.parametrize("executions", EXECUTIONS[-1:])
def test_a_backup_changes_nothing(tmp_path, executions):
    plain = fit(lambda: stream(0), [], executions)
    backup = kd.BackupAndRestore(tmp_path / "backup")
    backed = fit(lambda: stream(0), [backup], executions)
    assert int(backed.optimizer.iterations) == EPOCHS * BATCHES
    assert_same(plain, backed)


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("executions", EXECUTIONS)
@pytest.mark.parametrize("save_freq", ["epoch", 5])
def test_a_killed_run_ends_as_another(tmp_path, executions, save_freq, validation):
    arguments = {"validation_data": stream(9)} if validation else {}
    plain = fit(lambda: stream(0), [], executions, **arguments)
    arguments = {"validation_data": stream(9)} if validation else {}
    # Within the third epoch.
    after = -(-BATCHES // executions) * 2 + 2
    again = killed(
        lambda: stream(0), tmp_path / "b", after, executions, save_freq, **arguments
    )
    assert_same(plain, again)


@pytest.mark.parametrize("after", [14, 30, 40])
def test_callbacks_continue_where_they_were(tmp_path, after):
    """The rate is reduced after epoch 2 and the training stopped after epoch 3."""
    plain = fit(lambda: stream(0), stateful())
    assert int(plain.optimizer.iterations) == EPOCHS * BATCHES
    assert float(plain.optimizer.learning_rate) == pytest.approx(0.01)
    again = killed(lambda: stream(0), tmp_path / "b", after, extra=stateful)
    assert_same(plain, again)


def test_a_run_that_a_callback_ended_stays_ended(tmp_path):
    def stopping():
        return keras.callbacks.EarlyStopping("loss", patience=1, min_delta=10.0)

    def backup():
        return kd.BackupAndRestore(tmp_path, delete_checkpoint=False)

    plain = fit(lambda: stream(0), [backup(), stopping()])
    assert int(plain.optimizer.iterations) == 2 * BATCHES
    assert_same(plain, fit(lambda: stream(0), [backup(), stopping()]))


KINDS = {
    "arrays": lambda: arrays(0),
    "parts": Parts,
    "unknown length": lambda: stream(0).filter(lambda x, y: True),
    "generator": lambda: iter(list(stream(0)) * EPOCHS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data(tmp_path, kind):
    steps = {"steps_per_epoch": BATCHES} if kind == "generator" else {}
    plain = fit(KINDS[kind], [], **steps)
    assert int(plain.optimizer.iterations) == EPOCHS * BATCHES
    backup = kd.BackupAndRestore(tmp_path / "a")
    assert_same(plain, fit(KINDS[kind], [backup], **steps))
    again = killed(KINDS[kind], tmp_path / "b", 2 * BATCHES + 2, **steps)
    assert_same(plain, again)


@pytest.mark.parametrize("steps", [3, *([] if ONE_STEP else [4]), 12, 24])
@pytest.mark.parametrize("executions", EXECUTIONS[:2])
def test_epochs_of_counted_steps(tmp_path, executions, steps):
    counted = {"steps_per_epoch": steps, "executions": executions}
    plain = fit(lambda: stream(0), [], **counted)
    backup = kd.BackupAndRestore(tmp_path / "a")
    assert_same(plain, fit(lambda: stream(0), [backup], **counted))
    after = -(-min(steps, BATCHES) // executions) * 2 + 1
    again = killed(lambda: stream(0), tmp_path / "b", after, **counted)
    assert_same(plain, again)


@pytest.mark.parametrize("data", [lambda: stream(0), lambda: arrays(0)])
def test_epochs_that_end_within_the_data_are_refused(tmp_path, data):
    with pytest.raises(ValueError, match="cannot resume epochs of 5 batches"):
        fit(data, [kd.BackupAndRestore(tmp_path)], steps_per_epoch=5)


def test_a_global_generator_behind_parts_is_warned_of(tmp_path):
    class Global(Parts):
        def on_epoch_end(self):
            np.random.shuffle(self.order)

    with pytest.warns(UserWarning, match="on_epoch_end of Global draws from a global"):
        killed(Global, tmp_path, BATCHES + 2)


def test_models_that_are_created_again_in_one_process(tmp_path):
    """As in a notebook: Keras counts the names of the layers on."""
    with pytest.raises(KeyboardInterrupt):
        fit(lambda: stream(0), [kd.BackupAndRestore(tmp_path), Stop(14)])
    make()
    again = fit(lambda: stream(0), [kd.BackupAndRestore(tmp_path)])
    assert int(again.optimizer.iterations) == EPOCHS * BATCHES


def test_two_replicas(tmp_path, two_replicas):
    """With one step per execution: Keras itself fails with several here."""

    def validation():
        return {"validation_data": stream(9)}

    with two_replicas.scope():
        backups = [kd.BackupAndRestore(tmp_path / "whole"), *stateful()]
        whole = fit(lambda: stream(0), backups, **validation())
        again = killed(
            lambda: stream(0),
            tmp_path / "killed",
            2 * BATCHES + 2,
            extra=stateful,
            **validation(),
        )
    assert np.array(whole.optimizer.iterations.value) == EPOCHS * BATCHES
    assert_same(whole, again)


def test_counted_steps_on_distributed_data_are_refused(tmp_path, two_replicas):
    with (
        two_replicas.scope(),
        pytest.raises(ValueError, match="cannot advance a Distr"),
    ):
        fit(
            lambda: two_replicas.experimental_distribute_dataset(stream(0)),
            [kd.BackupAndRestore(tmp_path)],
            steps_per_epoch=4,
        )


@pytest.mark.parametrize("after", [4, 16])
def test_a_rate_that_is_set_as_an_epoch_begins_is_set_once(tmp_path, after):
    """In a run that is resumed within the epoch too."""

    def halved():
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)]

    plain = fit(lambda: stream(0), halved())
    again = killed(lambda: stream(0), tmp_path / "b", after, 1, 2, halved)
    assert_same(plain, again)


def test_evaluations_that_read_on_are_refused(tmp_path):
    backup = kd.BackupAndRestore(tmp_path)
    for validation in (stream(1), stream(1).repeat()):
        with pytest.raises(
            ValueError, match=r"validation_steps=5 on data.*take\(steps\)"
        ):
            fit(
                lambda: stream(0),
                [backup],
                validation_data=validation,
                validation_steps=5,
            )
    fit(
        lambda: stream(0),
        [backup],
        validation_data=stream(1).take(5),
        validation_steps=5,
    )


def test_a_loader_with_a_generator_of_its_own_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    x, y = map(torch.tensor, arrays(0))
    data = torch.utils.data.TensorDataset(x, y)
    own = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(data, 4, shuffle=True, generator=own)
    with pytest.raises(ValueError, match=r"DataLoader with a generator of its own"):
        fit(lambda: loader, [kd.BackupAndRestore(tmp_path)])
