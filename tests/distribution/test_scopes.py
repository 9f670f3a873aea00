"""Strategies by name: what each kind enters, and an error where something is missing."""

import keras
import pytest

import keras_distill as kd

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
