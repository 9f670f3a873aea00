"""Peers in processes of their own, against their formula, and when some are missing."""

import os
import threading

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill._backend import files
from tests import processes
from tests.formulas import softmax
from tests.linear import linear, points, weights

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def teacher(folder, name="a", others=("b",), **arguments):
    peers = {other: linear(other) for other in others}
    return kd.RemotePeers(peers, folder, name=name, **{"wait": 0.0, **arguments})


def write(folder, name, seed):
    """Write the weights of another process's peer; return them."""
    keras.utils.set_random_seed(seed)
    student = linear(name)
    teacher(folder, name, ("other",)).write(student)
    return weights(student)


def distiller(teacher, **arguments):
    keras.utils.set_random_seed(0)
    made = kd.Distiller(
        linear("student"), teacher, terms=[kd.Term(kd.losses.SoftTarget(2.0))]
    )
    made.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY, **arguments)
    return made


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
@pytest.mark.parametrize("others", [("b",), ("b", "c")])
def test_a_student_learns_from_the_weights_in_the_folder(tmp_path, others, average):
    x, y = points()
    found = [write(tmp_path, name, seed) for seed, name in enumerate(others, 5)]
    made = distiller(teacher(tmp_path, others=others, average=average))
    kernel, bias = weights(made.student)
    z_t = np.stack([x @ k + b for k, b in found])
    geometric = average == "geometric"
    p = softmax(z_t.mean(0), 2.0) if geometric else softmax(z_t, 2.0).mean(0)
    q = softmax(x @ kernel + bias, 2.0)
    expected = 4.0 * (p * np.log(p / q)).sum(-1).mean()
    logs = made.fit(x, y, batch_size=12, verbose=0).history
    assert logs["soft_target"][0] == pytest.approx(expected, rel=1e-4)


class Rewrites(keras.callbacks.Callback):
    """Write new weights of another peer after the first step; record those that teach."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.new, self.taught = folder, None, []

    def on_train_batch_end(self, batch, logs=None):
        if self.new is None:
            self.new = write(self.folder, "b", seed=9)
            # Two files written in one tick of the clock would look alike.
            path = self.folder / "b.npz"
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        self.taught.append(weights(self.model.teacher.members[0]))


@pytest.mark.parametrize(
    "how",
    [{}, {"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
    ids=str,
)
def test_new_weights_teach_from_the_next_refresh_on(tmp_path, how):
    if keras.backend.backend() == "torch" and "steps_per_execution" in how:
        pytest.skip("Keras has no steps_per_execution on torch")
    x, y = points()
    first, rewrites = write(tmp_path, "b", seed=5), Rewrites(tmp_path)
    made = distiller(teacher(tmp_path, refresh=4), **how)
    made.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[rewrites])
    each = how.get("steps_per_execution", 1)
    assert len(rewrites.taught) == 12 // each
    for step, found in enumerate(rewrites.taught):
        expected = first if step * each < 4 else rewrites.new
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    # The loss is that of the new ones.
    kernel, bias = weights(made.student)
    p = softmax(x @ rewrites.new[0] + rewrites.new[1], 2.0)
    q = softmax(x @ kernel + bias, 2.0)
    expected = 4.0 * (p * np.log(p / q)).sum(-1).mean()
    logs = made.fit(x, y, batch_size=12, verbose=0).history
    assert logs["soft_target"][0] == pytest.approx(expected, rel=1e-4)


def test_the_others_get_the_weights_it_ends_with(tmp_path):
    write(tmp_path, "b", seed=5)
    made = distiller(teacher(tmp_path))
    made.fit(*points(), batch_size=4, verbose=0)
    other = teacher(tmp_path, "b", ("a",))
    other.read()
    for a, b in zip(weights(other.members[0]), weights(made.student), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_lost_folder_stops_no_training_once_the_peers_have_met(tmp_path):
    write(tmp_path, "b", seed=5)

    class Loses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if (tmp_path / "b.npz").exists():
                for file in tmp_path.iterdir():
                    file.unlink()
                tmp_path.rmdir()
                tmp_path.write_text("")

    made = distiller(teacher(tmp_path, refresh=1))
    with pytest.warns(UserWarning, match="can't be written"):
        made.fit(*points(), batch_size=4, verbose=0, callbacks=[Loses()])
    assert int(made.optimizer.iterations) == 3
    with pytest.raises(OSError):
        distiller(teacher(tmp_path)).fit(*points(), verbose=0)


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_resumed_peer_writes_the_weights_of_its_backup(tmp_path):
    write(tmp_path, "b", seed=5)

    class Looks(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not hasattr(self, "found"):
                other = teacher(tmp_path, "b", ("a",))
                other.read()
                self.found = weights(other.members[0])

    def run(*callbacks):
        made = distiller(teacher(tmp_path, refresh=50))
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fit = {"batch_size": 4, "shuffle": False, "epochs": 4, "verbose": 0}
        made.fit(*points(), **fit, callbacks=[backup, *callbacks])
        return made

    with pytest.raises(KeyboardInterrupt):
        run(Stop())
    saved = np.load(tmp_path / "backup" / "state.npz")
    kernel = next(saved[n] for n in saved.files if saved[n].shape == (4, 3))
    looks = Looks()
    run(looks)
    np.testing.assert_allclose(looks.found[0], kernel, atol=1e-7)


def test_a_damaged_file_leaves_the_weights_before(tmp_path):
    before = write(tmp_path, "b", seed=5)
    made = teacher(tmp_path)
    made.read()
    path = tmp_path / "b.npz"
    path.write_bytes(path.read_bytes()[:-40])
    unchanged(made, before)
    path.unlink()
    unchanged(made, before)


def unchanged(made, before):
    with pytest.warns(UserWarning, match="'b' goes on teaching"):
        made.read()
    for a, b in zip(weights(made.members[0]), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_that_are_not_finite_are_not_exchanged(tmp_path):
    before = write(tmp_path, "b", seed=5)
    made = teacher(tmp_path)
    made.read()
    lost = linear("b")
    lost.set_weights([np.full(w.shape, np.nan) for w in lost.get_weights()])
    other = teacher(tmp_path, "b", ("a",))
    other.write(lost)
    again = teacher(tmp_path)
    again.read()
    for a, b in zip(weights(again.members[0]), before, strict=True):
        np.testing.assert_array_equal(a, b)
    # A process that writes them nevertheless.
    variables = files.numbered(lost.variables, "weight")
    values = {name: files.to_numpy(v) for name, v in variables.items()}
    files.write_arrays(str(tmp_path / "b.npz"), values)
    unchanged(made, before)


@pytest.mark.parametrize("kind", ["whole", "damaged", "not finite"])
def test_a_file_that_has_not_changed_is_read_once(tmp_path, monkeypatch, kind):
    found, read = [], files.read_arrays
    monkeypatch.setattr(
        files, "read_arrays", lambda *args: found.append(args[0]) or read(*args)
    )
    write(tmp_path, "b", seed=5)
    path = tmp_path / "b.npz"
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:-40])
    if kind == "not finite":
        variables = files.numbered(linear("b").variables, "weight")
        nan = {
            name: np.full(v.shape, np.nan, "float32") for name, v in variables.items()
        }
        files.write_arrays(str(path), nan)
    made = teacher(tmp_path)
    for _ in range(3):
        made._load("b", made.members[0])
    assert found == [str(path)]
    write(tmp_path, "b", seed=6)
    made.read()
    assert found == [str(path)] * 2


class Position(keras.callbacks.Callback):
    """How many steps were taken so far."""

    steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += self.model.steps_per_execution


@pytest.mark.parametrize(
    ("steps_per_execution", "batch_size", "refresh", "at"),
    [
        (1, 12, 2, (2, 4)),
        (1, 4, 2, (2, 4, 6, 8, 10, 12, 14)),
        (2, 3, 4, (4, 8, 12, 16)),
    ],
)
def test_steps_are_counted_over_epochs(
    tmp_path, monkeypatch, steps_per_execution, batch_size, refresh, at
):
    """Five epochs: they meet in the first, and write and read at each refresh."""
    position, calls = Position(), []
    for name in ("write", "meet", "read"):
        monkeypatch.setattr(
            kd.RemotePeers,
            name,
            lambda *_, name=name: calls.append((name, position.steps)),
        )
    made = distiller(
        teacher(tmp_path, refresh=refresh), steps_per_execution=steps_per_execution
    )
    made.fit(*points(), batch_size, epochs=5, verbose=0, callbacks=[position])
    refreshed = [(name, step) for step in at for name in ("write", "read")]
    expected = [("write", 0), ("meet", 0), *refreshed, ("write", position.steps)]
    assert calls == expected


def test_a_fit_begins_with_the_weights_in_the_folder(tmp_path):
    """A backup may have restored others, while the file stayed as it was."""
    kernel, _ = write(tmp_path, "b", seed=5)
    made = distiller(teacher(tmp_path))
    made.fit(*points(), verbose=0)
    made.teacher.members[0].set_weights([np.zeros((4, 3)), np.zeros(3)])
    made.fit(*points(), verbose=0)
    np.testing.assert_array_equal(weights(made.teacher.members[0])[0], kernel)


class Unnamed(keras.layers.Layer):
    """A layer whose weight has no name, so that Keras counts one up."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


def test_names_that_keras_counts_do_not_matter(tmp_path):
    def net():
        x = keras.Input((4,))
        return keras.Model(x, keras.layers.Dense(3)(Unnamed()(x)))

    first, *_, last = (net() for _ in range(3))
    kd.RemotePeers({"a": net()}, tmp_path, name="b").write(first)
    made = kd.RemotePeers({"b": last}, tmp_path, name="a")
    made.read()
    for a, b in zip(weights(made.members[0]), weights(first), strict=True):
        np.testing.assert_array_equal(a, b)


def damaged(folder):
    (folder / "b.npz").write_bytes((folder / "b.npz").read_bytes()[:-40])


def with_kernel(make):
    """Return a function that writes the weights of "b" with another kernel."""

    def write(folder):
        found = files.read_arrays(folder / "b.npz")
        name = next(name for name in found if "kernel" in name)
        with files.write_then_rename(folder / "b.npz") as beside:
            found[name] = make(found[name])
            np.savez(beside, count=len(found), **found)

    return write


def of_zeros(folder):
    found = files.read_arrays(folder / "b.npz")
    np.savez_compressed(
        folder / "b.npz", count=len(found) + 1, **found, z=np.zeros(9**7)
    )


UNFIT = {
    "damaged": (damaged, "BadZipFile"),
    "empty": (lambda f: (f / "b.npz").write_bytes(b""), "BadZipFile"),
    "nan": (with_kernel(lambda k: k * np.nan), "kernel' is not finite"),
    "inf": (with_kernel(lambda k: k + np.inf), "kernel' is not finite"),
    "complex": (with_kernel(lambda k: k * 1j), "kernel' must be numbers"),
    "strings": (with_kernel(lambda k: k.astype(str)), "kernel' must be numbers"),
    "objects": (with_kernel(lambda k: k.astype(object)), "kernel' must be numbers"),
    "integers": (with_kernel(lambda k: k.astype(int)), "kernel' is int64, not float32"),
    "large": (with_kernel(lambda k: k.astype("float64") + 1e300), "float32 can't hold"),
    "bomb": (of_zeros, "would take 38,"),
}


@pytest.mark.parametrize("spoil, words", UNFIT.values(), ids=UNFIT)
def test_weights_that_are_unfit_are_waited_for_or_refused(tmp_path, spoil, words):
    before = write(tmp_path, "b", seed=5)
    made = teacher(tmp_path)
    made.read()
    spoil(tmp_path)
    os.utime(tmp_path / "b.npz", ns=(0, 1))
    fresh = weights(teacher(tmp_path).members[0])
    with pytest.raises(ValueError, match=f"peer 'b'.*{words}") as error:
        distiller(teacher(tmp_path)).fit(*points(), verbose=0)
    assert "pickle" not in str(error.value)
    unchanged(made, before)
    other = teacher(tmp_path)
    with pytest.warns(UserWarning, match=words):
        other.read()
    assert len(fresh) == len(weights(other.members[0]))


def test_it_waits_for_weights_that_can_be_used(tmp_path):
    before = write(tmp_path, "b", seed=5)
    whole = (tmp_path / "b.npz").read_bytes()
    damaged(tmp_path)
    made = teacher(tmp_path, wait=60.0)
    later = threading.Timer(0.3, (tmp_path / "b.npz").write_bytes, [whole])
    later.start()
    made.meet()
    later.join()
    for a, b in zip(weights(made.members[0]), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/a",
        "a\\b",
        "C:a",
        ".a",
        "a\0b",
        "a\n",
        "x" * 999,
        3,
    ],
)
def test_names_that_are_paths_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="must be able to name a file"):
        teacher(tmp_path, name=name)
    with pytest.raises(ValueError, match="must be able to name a file"):
        kd.RemotePeers({name: linear("b")}, tmp_path, name="a")
    assert teacher(tmp_path, name="peer 1.b_c-d").name == "peer 1.b_c-d"


def other_architecture(folder):
    keras.utils.set_random_seed(0)
    teacher(folder, "b", ("a",)).write(linear("wide", classes=4))
    distiller(teacher(folder)).fit(*points(), verbose=0)


BAD = {
    "no peers": (lambda f: teacher(f, others=()), ["at least one"]),
    "itself": (lambda f: teacher(f, others=("a",)), ["that of this process"]),
    "no file's name": (lambda f: teacher(f, name="a/b"), ["'a/b'"]),
    "refresh": (lambda f: teacher(f, refresh=0), ["refresh", "1 or more; got 0"]),
    "average": (lambda f: teacher(f, average="mean"), ["'geometric'", "'mean'"]),
    "absent": (
        lambda f: distiller(teacher(f)).fit(*points(), verbose=0),
        ["'b'", "name='b'"],
    ),
    "architecture": (other_architecture, ["'b'", "kernel"]),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_errors_before_the_first_step(tmp_path, make, words):
    with pytest.raises(ValueError) as error:
        make(tmp_path)
    for word in words:
        assert word in str(error.value)


def test_a_peer_is_a_model(tmp_path):
    with pytest.raises(TypeError, match=r"keras\.Model"):
        kd.RemotePeers({"b": 3}, tmp_path, name="a")


def test_a_peer_of_two_replicas_is_one_of_one(tmp_path, two_replicas):
    write(tmp_path, "b", seed=5)

    def fit():
        made = distiller(teacher(tmp_path, refresh=2))
        fit = {"batch_size": 4, "shuffle": False, "epochs": 2, "verbose": 0}
        made.fit(*points(), **fit)
        return weights(made.student) + weights(made.teacher.members[0])

    one = fit()
    with two_replicas.scope():
        two = fit()
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_two_processes_end_closer_together_than_alone(tmp_path, backend):
    alone, together = (
        apart(tmp_path / how, backend, how) for how in ("alone", "together")
    )
    assert together < 0.5 * alone


@pytest.mark.long
def test_a_dead_peer_goes_on_teaching(tmp_path):
    (worker,) = start(tmp_path, "tensorflow", ["together"], names=["a"])
    other, *_ = start(tmp_path, "tensorflow", ["together", "dies"], names=["b"])
    assert other.wait(timeout=240) == 3
    assert worker.wait(timeout=240) == 0
    assert (tmp_path / "a.logits.npy").exists()


def start(folder, backend, arguments, names=("a", "b")):
    folder.mkdir(exist_ok=True)
    return processes.start_each(
        "tests.teachers.remote_peer",
        [[folder, name, *arguments] for name in names],
        folder,
        backend,
    )


def apart(folder, backend, how):
    """Return the distance of the predictions of two peers that trained together."""
    for index, peer in enumerate(start(folder, backend, [how])):
        log = folder / f"{index}.log"
        assert peer.wait(timeout=240) == 0, log.read_text()[-3000:]
    a, b = (softmax(np.load(folder / f"{name}.logits.npy")) for name in "ab")
    return np.abs(a - b).mean()
