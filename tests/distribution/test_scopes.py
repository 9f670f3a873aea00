"""Strategies by name: what each kind enters, and an error where something is missing."""

import importlib.util
import os
import subprocess
import sys

import keras
import pytest

import keras_distill as kd
from tests.processes import free_ports

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)


def entered(kind):
    with kd.strategies.scope(kind) as strategy:
        return strategy


def test_mirrored_reuses_the_strategy(two_replicas):
    strategy = entered("mirrored")
    assert strategy is two_replicas
    assert strategy.num_replicas_in_sync == 2


@pytest.mark.parametrize("kind", ["one", "auto"])
def test_one_device(kind, capsys, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert entered(kind).num_replicas_in_sync == 1
    assert "one device" in capsys.readouterr().out


ON_JAX = """
import keras
import keras_distill as kd
for _ in range(2):
    with kd.strategies.scope("multiworker") as outer:
        assert keras.distribution.distribution() is outer
        with kd.strategies.scope("one"):
            assert keras.distribution.distribution() is None
assert keras.distribution.distribution() is None
"""


@pytest.mark.long
def test_scopes_on_jax_are_entered_again_and_nested():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    cluster = {"JOB_ADDRESSES": f"localhost:{free_ports(1)[0]}", "NUM_PROCESSES": "1"}
    cluster |= {"PROCESS_ID": "0"}
    settings = {f"KERAS_DISTRIBUTION_{name}": x for name, x in cluster.items()}
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax", **settings},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_no_such_kind():
    with pytest.raises(
        ValueError, match="one, mirrored, multiworker, tpu, auto; got 'gpu'"
    ):
        entered("gpu")


@pytest.mark.parametrize("config", [None, "{}"])
def test_workers_without_addresses(config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="needs the environment variable TF_CONFIG"):
        entered("multiworker")


def test_workers_after_tensorflow_has_started(monkeypatch):
    keras.ops.ones(())
    cluster = '{"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": '
    monkeypatch.setenv("TF_CONFIG", cluster + '{"type": "worker", "index": 0}}')
    with pytest.raises(ValueError, match="enter the scope before any tensor"):
        entered("multiworker")


def test_no_tpu(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(ValueError, match="TPU 'local' is not available"):
        entered("tpu")


def test_torch_has_one_device(monkeypatch, capsys):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert entered("auto") is None
    with pytest.raises(ValueError, match="'mirrored' is for TensorFlow and JAX"):
        entered("mirrored")
