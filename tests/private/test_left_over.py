"""What killed writers leave is removed by whoever finds it; living writers keep theirs."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill._backend import files

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def dead():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def touch(path, age=0.0):
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize("name", ["state.npz", "0.weights.h5", "plan", "a.b.c"])
def test_those_of_dead_writers_alone_are_removed(tmp_path, dead, name):
    stem, dot, ending = name.partition(".")
    part = lambda owner: tmp_path / f"{stem}.{owner}.part{dot}{ending}"  # noqa: E731
    gone = [touch(part(f"{HOST}.{dead}")), touch(part("far.away.7"), 2 * 86400)]
    kept = [
        touch(part(f"{HOST}.{os.getpid()}"), 9 * 86400),
        touch(part(f"{HOST}.{os.getppid()}"), 9 * 86400),
        touch(part("far.away.8"), 3600),
        touch(tmp_path / f"{stem}.part{dot}{ending}", 9 * 86400),
        touch(tmp_path / name, 9 * 86400),
        touch(tmp_path / f"other.{HOST}.{dead}.part{dot}{ending}"),
    ]
    files.remove_left_over(tmp_path, name)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    files.remove_left_over(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept[:-1])
    assert not any(path.exists() for path in gone)
    files.remove_left_over(tmp_path / "missing")


SCRIPT = """
import sys, time
from keras_distill._backend import files
with files.write_then_rename(sys.argv[1]) as beside:
    beside.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("first", [False, True])
def test_a_killed_writer_leaves_nothing_for_long(tmp_path, first):
    path = tmp_path / "state.json"
    root = str(pathlib.Path(__file__).parents[2])
    writer = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    writer.stdout.readline()

    def write():
        if first:
            assert files.write_first(path, b"whole")
        else:
            with files.write_then_rename(path) as beside:
                beside.write_text("whole")

    write()
    assert len(list(tmp_path.iterdir())) == 2
    path.unlink()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    write()
    assert list(tmp_path.iterdir()) == [path]


def net():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(3)(inputs))


def data():
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    return kd.data.Samples(x, np.arange(8, dtype="int32") % 3)


def fit(folder, **arguments):
    distiller = kd.Distiller(net(), arguments.pop("teacher", None) or net())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss)
    samples = data()
    x, y = samples.images, samples.labels
    distiller.fit(x, y, shuffle=False, verbose=0, **arguments)


def with_cache(folder):
    kd.CachedTeacher(folder, net()).build(data(), verbose=0)
    return lambda: kd.CachedTeacher(folder).read([0])


def with_cache_to_build(folder):
    teacher = net()
    kd.CachedTeacher(folder, teacher).build(data(), verbose=0)
    touch(folder / "shard-00000.claim").write_text(f"{HOST} 99999999")
    touch(folder / f"clock.{HOST}.99999999.part")
    return lambda: kd.CachedTeacher(folder, teacher).build(data(), verbose=0)


def with_peers(folder):
    kd.RemotePeers({"a": net()}, folder, name="b").write(net())
    peers = kd.RemotePeers({"b": net()}, folder, name="a", wait=0.0)
    return peers.meet


def with_backup(folder):
    backup = kd.BackupAndRestore(folder, delete_checkpoint=False)
    return lambda: fit(folder, callbacks=[backup])


def with_metadata(folder):
    metadata = kd.record_metadata(net(), data().images, kind="top")
    metadata.save(folder / "shard-00000.npz")
    return lambda: kd.Metadata.load(folder / "shard-00000.npz")


def with_runs(folder):
    runs = kd.analysis.Runs(folder / "shard-00000.npz")
    return lambda: runs.once("alone", 0, lambda: 1.0)


WAYS = [with_cache, with_cache_to_build, with_peers, with_backup, with_metadata]


@pytest.mark.parametrize("way", [*WAYS, with_runs])
def test_every_reader_removes_them(tmp_path, dead, way):
    find = way(tmp_path)
    before = set(tmp_path.iterdir())
    left = touch(tmp_path / f"shard-00000.{HOST}.{dead}.part.npz")
    touch(tmp_path / f"shard-00000.{HOST}.{os.getppid()}.part.npz")
    find()
    assert not left.exists()
    names = {path.name for path in set(tmp_path.iterdir()) - before}
    assert f"shard-00000.{HOST}.{os.getppid()}.part.npz" in names
    assert not list(tmp_path.glob("*.claim")) and not list(tmp_path.glob("clock*"))
