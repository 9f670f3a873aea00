"""Processes that build a cache: killed, in parallel, on other backends, disk full."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import keras_distill as kd
from keras_distill._backend.files import write_then_rename
from keras_distill.teachers.cache.claims import Claims
from tests.processes import free_ports

SCRIPT = pathlib.Path(__file__).with_name("maker.py")
ROOT = SCRIPT.parents[3]
SHARDS = 10
# Two that begin at once and take a second per shard, so that both build some.
TOGETHER = "--company", "2", "--pause", "0.3"


def start(folder, *arguments, name="0", **environment):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
        **environment,
    }
    result = folder / f"{name}.npz"
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder / "cache"), str(result), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def made(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    return [int(shard) for shard in re.findall(r"made (\d+)", output)]


def shards(folder):
    return sorted((folder / "cache").glob("shard-?????.tfrecord"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert made(start(folder)) == list(range(SHARDS))
    return dict(np.load(folder / "0.npz"))


def assert_same(folder, undisturbed, name="0", rtol=0.0):
    found = np.load(folder / f"{name}.npz")
    assert set(found) == set(undisturbed)
    for key, expected in undisturbed.items():
        np.testing.assert_allclose(found[key], expected, rtol=rtol, atol=rtol)


@pytest.mark.long
def test_a_killed_build_continues(tmp_path, undisturbed):
    process = start(tmp_path, "--pause", "0.2")
    while len(shards(tmp_path)) < 3 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    assert 3 <= len(there) < SHARDS
    assert list((tmp_path / "cache").glob("*.claim"))
    assert made(start(tmp_path, "--pause", "0.001")) == list(range(len(there), SHARDS))
    assert all(path.stat().st_mtime_ns == then for path, then in there.items())
    left = {"".join(path.suffixes) for path in (tmp_path / "cache").iterdir()}
    assert left == {".tfrecord", ".json"}
    assert_same(tmp_path, undisturbed)


@pytest.mark.long
def test_two_processes_share_the_work(tmp_path, undisturbed):
    processes = [start(tmp_path, *TOGETHER, name=str(n)) for n in range(2)]
    first, second = (made(process) for process in processes)
    assert first and second
    assert sorted(first + second) == list(range(SHARDS))
    for name in "01":
        assert_same(tmp_path, undisturbed, name)


@pytest.mark.long
def test_shards_of_a_dead_process_are_taken_over(tmp_path, undisturbed):
    first, second = (start(tmp_path, *TOGETHER, name=str(n)) for n in range(2))
    while len(shards(tmp_path)) < 4 and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    built = {int(shard) for shard in re.findall(r"made (\d+)", first.communicate()[0])}
    rest = made(second)
    assert built.isdisjoint(rest) and len(shards(tmp_path)) == SHARDS
    assert_same(tmp_path, undisturbed, "1")


@pytest.mark.long
def test_under_a_strategy_each_worker_builds_its_shards_first(tmp_path, undisturbed):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        processes.append(start(tmp_path, *TOGETHER, name=str(index), TF_CONFIG=config))
    parts = [made(process) for process in processes]
    assert sorted(parts[0] + parts[1]) == list(range(SHARDS))
    for index, part in enumerate(parts):
        first = [shard for shard in part if shard % 2 == index]
        assert first == part[: len(first)] and first
    for name in "01":
        assert_same(tmp_path, undisturbed, name, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_store_the_same(backend, tmp_path, undisturbed):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    assert made(start(tmp_path, KERAS_BACKEND=backend)) == list(range(SHARDS))
    assert_same(tmp_path, undisturbed, rtol=2e-3)


def test_only_damaged_shards_are_built_again(tmp_path, teacher, samples):
    cached = kd.CachedTeacher(tmp_path / "cache", teacher)
    cached.build(samples, 16, shard_rows=30, verbose=0)
    expected = cached.read(samples.ids)["logits"]["all"]
    paths = shards(tmp_path)
    then = [path.stat().st_mtime_ns for path in paths]
    contents = bytearray(paths[4].read_bytes())
    contents[100] ^= 4
    paths[4].write_bytes(contents)
    paths[6].write_bytes(paths[6].read_bytes()[:-9])
    paths[8].unlink()
    with pytest.raises(ValueError, match=r"00004.*damaged.*00006.*00008.*is missing"):
        kd.CachedTeacher(tmp_path / "cache").read([0])
    cached.build(samples, 16, verbose=0)
    now = [path.stat().st_mtime_ns for path in paths]
    assert [n for n in range(SHARDS) if now[n] != then[n]] == [4, 6, 8]
    np.testing.assert_array_equal(cached.read(samples.ids)["logits"]["all"], expected)


@pytest.mark.long
def test_a_full_disk_raises_and_complete_shards_stay(tmp_path, undisturbed):
    process = start(tmp_path, "--full-after", "4")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert (
        "no space for the cache" in errors and "call build again to continue" in errors
    )
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {f"shard-{n:05d}.tfrecord" for n in range(4)} | {"cache.json"}
    assert made(start(tmp_path)) == [4, 5, 6, 7, 8, 9]
    assert_same(tmp_path, undisturbed)


def test_too_small_a_disk_raises_first(tmp_path, teacher, samples, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    cached = kd.CachedTeacher(tmp_path / "c", teacher)
    with pytest.raises(OSError, match=r"0\.0 MB to write, 0\.0 MB free"):
        cached.build(samples, verbose=0)
    assert not list((tmp_path / "c").glob("shard*"))


def test_claims(tmp_path):
    """Those of live processes hold; those of dead ones expire, on this host at once."""
    mine, path = Claims(tmp_path, patience=0.5), tmp_path / "shard-00003.claim"
    assert mine.acquire(3) and path.exists()
    assert not Claims(tmp_path, patience=0.5).acquire(3)
    mine.release(3)
    path.write_text("elsewhere 1")
    assert not mine.acquire(3)
    os.utime(path, (time.time() - 2, time.time() - 2))
    path.touch()
    assert not mine.acquire(3)
    os.utime(path, (time.time() - 2, time.time() - 2))
    assert mine.acquire(3)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.write_text(f"{mine.name.split()[0]} {dead.pid}")
    assert mine.acquire(3)


def test_incomplete_files_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    kept, removed = (
        [
            tmp_path / f"shard-00003.{name}.part{ending}"
            for name in names
            for ending in (".tfrecord", "")
        ]
        for names in ([f"{host}.{os.getpid()}", "elsewhere.1"], [f"{host}.{dead.pid}"])
    )
    for path in kept + removed:
        path.touch()
    Claims(tmp_path, patience=0.5).remove_left_over([])
    assert set(tmp_path.iterdir()) == set(kept)
    with write_then_rename(tmp_path / "shard-00004.tfrecord") as beside:
        beside.touch()
        Claims(tmp_path, patience=0.5).remove_left_over([])
        assert beside.exists()


def test_it_prints_size_and_time(tmp_path, teacher, samples, capsys):
    kd.CachedTeacher(tmp_path / "c", teacher).build(samples, 64, shard_rows=100)
    output = capsys.readouterr().out
    # An id, two numbers of a sketch, ten logits in float16.
    assert "Cache: 300 rows of 28 bytes, 0.0 MB in 3 shards, about 0 s" in output
    assert "300/300 rows" in output and "nats a sample" in output
    kd.CachedTeacher(tmp_path / "d", teacher).build(samples, 64, verbose=0)
    assert capsys.readouterr().out == ""
