"""Results of many runs, kept on disk; the mask of wrong predictions."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.analysis import Runs, wrong


def test_a_run_is_made_once_and_is_stored(tmp_path):
    file, made = tmp_path / "folder" / "errors.json", []

    def run(figure):
        made.append(figure)
        return figure

    runs = Runs(file, {"epochs": (2, 3)})
    assert runs.once("alone", 10, lambda: run(4)) == 4
    assert runs.once("alone", 9, lambda: run(1)) == 1
    assert runs.once("pair", 0, lambda: run((5, 6))) == [5, 6]
    again = Runs(file, {"epochs": [2, 3]})
    assert again.once("alone", 9, lambda: run(7)) == 1
    assert made == [4, 1, (5, 6)]
    assert again.names == ["alone", "pair"]
    assert again["alone"] == [1, 4] and again["pair"] == [[5, 6]]


def test_a_failed_run_keeps_the_others(tmp_path):
    runs = Runs(tmp_path / "errors.json")
    runs.once("alone", 0, lambda: 1.5)
    with pytest.raises(ZeroDivisionError):
        runs.once("distilled", 0, lambda: 1 / 0)
    again = Runs(tmp_path / "errors.json")
    assert again.names == ["alone"] and again["alone"] == [1.5]


def test_mean_and_standard_deviation(tmp_path):
    runs = Runs(tmp_path / "errors.json")
    for seed, figure in enumerate((1.0, 2.0, 6.0)):
        runs.once("alone", seed, lambda figure=figure: figure)
    runs.once("teacher", 0, lambda: np.float32(0.5))
    # (4 + 1 + 9) / 3 = 4.667, its root 2.160
    assert runs.summary("alone") == "3.00 ± 2.16"
    assert runs.summary("teacher", digits=1) == "0.5"


def test_other_settings_are_rejected(tmp_path):
    Runs(tmp_path / "errors.json", {"epochs": 1}).once("alone", 0, lambda: 1)
    with pytest.raises(
        ValueError, match=r"'epochs': 1.*not.*'epochs': 2.*another file"
    ):
        Runs(tmp_path / "errors.json", {"epochs": 2})


def test_wrong_is_a_mask_of_the_samples():
    inputs = keras.Input((3, 1))
    model = keras.Model(inputs, keras.layers.Flatten()(inputs))
    images = np.eye(3, dtype="float32")[[0, 1, 2, 2, 0]][..., None]
    samples = kd.data.Samples(images, np.array([0, 1, 0, 2, 1]))
    np.testing.assert_array_equal(wrong(model, samples, 2), [0, 0, 1, 0, 1])


def test_wrong_needs_one_vector_per_sample():
    inputs = keras.Input((3, 1))
    samples = kd.data.Samples(np.zeros((4, 3, 1), "float32"), np.zeros(4, "int32"))
    with pytest.raises(ValueError, match=r"\(4, 3, 1\)"):
        wrong(keras.Model(inputs, keras.layers.ReLU()(inputs)), samples)


def test_a_result_is_converted_to_json(tmp_path):
    runs = Runs(tmp_path / "errors.json")
    assert runs.once("pair", 0, lambda: np.arange(3)) == [0, 1, 2]
    with pytest.raises(TypeError, match="got Sequential"):
        runs.once("net", 0, keras.Sequential)
    assert runs.names == ["pair"]
