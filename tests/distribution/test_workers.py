"""Processes that train in sync over loopback, and resuming after one is killed."""

import signal

import numpy as np
import pytest

from tests.processes import results, start

SCRIPT = "tests.distribution.worker"


def assert_close(found, expected, rtol, atol):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=rtol, atol=atol, err_msg=name
        )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["distiller", "mutual", "self"])
def test_three_workers_train_as_one(tmp_path, kind):
    """Weights, logs and predictions of every worker equal those of one process."""
    runs = {}
    for count in (1, 3):
        folder = tmp_path / str(count)
        folder.mkdir()
        processes = start(SCRIPT, folder, count, ("--kind", kind))
        runs[count] = results(folder, processes)
    (alone,), workers = runs[1], runs[3]
    for worker in workers:
        predicted = worker.pop("predicted")
        assert_close(worker, {n: alone[n] for n in worker}, rtol=1e-4, atol=1e-5)
        # Each worker reads its own part of a batch.
        assert sorted(np.round(predicted.sum(-1), 3)) == sorted(
            np.round(alone["predicted"].sum(-1), 3)
        )
    for other in workers[1:]:
        for name in workers[0]:
            np.testing.assert_array_equal(other[name], workers[0][name], err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["maps", "texts", "samples"])
def test_workers_whose_batches_have_different_sizes(tmp_path, kind):
    """The update is the mean over all samples, or tokens, of both workers."""
    script, alone = "tests.distribution.shapes", []
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        arguments = ("--kind", kind, "--alone", str(index))
        alone += results(folder, start(script, folder, 1, arguments))
    counts = [4 * 4, 2 * 5] if kind == "texts" else [4, 2]
    for found in results(tmp_path, start(script, tmp_path, 2, ("--kind", kind))):
        for name, value in found.items():
            one, other = (result[name].astype("float64") for result in alone)
            expected = (counts[0] * one + counts[1] * other) / sum(counts)
            np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)


def killed_and_whole(tmp_path, count, backend="tensorflow"):
    """Return results of a run that was killed and resumed, and of one that was not."""
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    for folder in folders.values():
        folder.mkdir()

    def run(name, last=()):
        arguments = ("--backup", str(tmp_path / f"backup_{name}"))
        return start(SCRIPT, folders[name], count, arguments, last, backend)

    whole = results(folders["whole"], run("whole"))
    *others, dying = run("killed", last=("--die-at", "7"))
    assert dying.wait(timeout=240) == -signal.SIGKILL
    for other in others:
        assert other.wait(timeout=60) > 0
    assert (tmp_path / "backup_killed" / "state.npz").exists()
    resumed = results(folders["killed"], run("killed"))
    assert not (tmp_path / "backup_killed").exists()
    return resumed, whole


def assert_same_weights(found, expected):
    names = [name for name in expected if name.startswith("weight")]
    assert len(names) > 20
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.long
def test_a_killed_worker_ends_the_job_which_resumes_exactly(tmp_path):
    for resumed, whole in zip(*killed_and_whole(tmp_path, 2), strict=True):
        assert_same_weights(resumed, whole)


@pytest.mark.long
def test_a_worker_that_is_killed_as_it_writes_a_backup(tmp_path):
    """The first worker writes; the file of the backup before stays whole."""
    folder = tmp_path / "backup"
    arguments = ("--backup", str(folder))
    processes = start(SCRIPT, tmp_path, 2, (*arguments, "--die-writing", "3"))
    assert processes[0].wait(timeout=240) == -signal.SIGKILL
    assert processes[1].wait(timeout=60) > 0
    # Two backups, after two batches each, were written whole.
    assert np.load(folder / "state.npz")["position"].tolist() == [0, 4, 0]
    resumed = results(tmp_path, start(SCRIPT, tmp_path, 2, arguments))
    (tmp_path / "whole").mkdir()
    whole = start(SCRIPT, tmp_path / "whole", 2, ("--backup", str(tmp_path / "other")))
    for found, expected in zip(
        resumed, results(tmp_path / "whole", whole), strict=True
    ):
        assert_same_weights(found, expected)
    assert not folder.exists()


@pytest.mark.long
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_killed_process_resumes_exactly(tmp_path, backend):
    (resumed,), (whole,) = killed_and_whole(tmp_path, 1, backend)
    assert_same_weights(resumed, whole)


@pytest.mark.long
def test_two_devices_of_jax_train_as_one(tmp_path, monkeypatch):
    found = []
    for count in (1, 2):
        flag = f"--xla_force_host_platform_device_count={count}"
        monkeypatch.setenv("XLA_FLAGS", flag)
        (tmp_path / str(count)).mkdir()
        workers = start(SCRIPT, tmp_path / str(count), 1, backend="jax")
        found += results(tmp_path / str(count), workers)
        assert found[-1].pop("devices") == count
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
