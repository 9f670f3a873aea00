"""Comparisons: the same initial weights, stages in order, no run repeated."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from keras_distill.analysis import Runs, compare

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 4)).astype("float32")
Y = (X @ RNG.normal(size=(4, 3))).argmax(-1)


def net(seed, units=4, name="net"):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = layers.Dense(units, activation="tanh", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name=name)


class Study:
    """Records the calls of a comparison."""

    def __init__(self, file):
        self.file = file
        self.trained, self.starts = [], []

    def student(self, seed):
        made = net(seed)
        self.starts.append(np.array(made.get_layer("hidden").kernel))
        return made

    def fit(self, model, seed, callbacks):
        self.trained.append((type(model).__name__, seed))
        labels = getattr(model, "label_source", 1.0) != 0.0
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss if labels else None)
        model.fit(X, Y, batch_size=16, verbose=0, callbacks=callbacks)

    def run(self, methods, seeds=2):
        return compare(
            methods,
            student=self.student,
            teacher=lambda seed: net(100 + seed, units=8, name="teacher"),
            fit=self.fit,
            judge=lambda model: (model.predict(X, verbose=0).argmax(-1) == Y).mean(),
            runs=Runs(self.file),
            seeds=seeds,
        )


soft = {"terms": [kd.Term(kd.losses.SoftTarget())], "label_weight": 0.5}


def staged(teacher):
    assert teacher.name == "teacher"
    hint = kd.Term(kd.losses.Hint(), "hidden", "hidden")
    return [{"terms": [hint], "label_weight": 0.0}, {}]


def test_rows_results_and_stages(tmp_path):
    study = Study(tmp_path / "figures.json")
    rows = study.run({"alone": None, "KD": soft, "hint first": staged})
    assert [row["method"] for row in rows] == ["teacher", "alone", "KD", "hint first"]
    assert [row.get("step") for row in rows[:2]] == [None, "1.00"]
    assert all(float(row["step"]) > 0 for row in rows[1:])
    assert all("std" in row for row in rows)
    # (4 + 1) * 4 + (4 + 1) * 3; the teacher has eight hidden units.
    assert [row["parameters"] for row in rows] == ["67", "35", "35", "35"]
    for seed in (0, 1):
        kinds = [kind for kind, trained in study.trained if trained == seed]
        assert kinds == ["Functional", "Distiller", "Distiller", "Functional"]
    # Each method of a seed starts from the same weights.
    np.testing.assert_array_equal(study.starts[0], study.starts[2])
    assert not np.array_equal(study.starts[0], study.starts[3])
    results = Runs(study.file)["KD"]
    expected = np.mean([result["figure"] for result in results])
    assert rows[2]["mean"] == f"{expected:.2f}"


@pytest.mark.long
def test_a_comparison_resumes_and_is_extended(tmp_path):
    study = Study(tmp_path / "figures.json")
    study.run({"alone": None}, seeds=1)
    again = Study(tmp_path / "figures.json")
    rows = again.run({"alone": None, "KD": soft}, seeds=2)
    assert again.trained == [("Distiller", 0), ("Functional", 1), ("Distiller", 1)]
    assert len(rows) == 3
    # Rows for fewer seeds use only their results.
    assert "std" not in again.run({"alone": None}, seeds=1)[1]


def test_an_empty_list_of_stages_is_the_student_alone(tmp_path):
    study = Study(tmp_path / "figures.json")
    study.run({"none": [], "alone": None}, seeds=1)
    assert study.trained == [("Functional", 0), ("Functional", 0)]


def test_an_adapter_shared_between_runs_is_rejected(tmp_path):
    adapter = layers.Dense(8)
    hint = kd.Term(kd.losses.Hint(), "hidden", "hidden", adapter=adapter)
    study = Study(tmp_path / "figures.json")
    for method in ({"terms": [hint]}, [{"terms": [hint]}, {}]):
        with pytest.raises(ValueError, match="'hinted' holds an adapter layer"):
            study.run({"hinted": method})


def test_a_method_overrides_the_teacher(tmp_path):
    teachers = []

    def other(teacher):
        teachers.append(teacher)
        return {**soft, "teacher": net(7, units=6, name="other")}

    study = Study(tmp_path / "figures.json")
    fit = study.fit

    def record(model, *args):
        teachers.append(model.teacher.models[0])
        fit(model, *args)

    study.fit = record
    study.run({"KD": soft, "KD of another": other}, seeds=1)
    assert [model.name for model in teachers] == ["teacher", "teacher", "other"]


@pytest.mark.parametrize("methods", [{}, {"teacher": None}])
def test_bad_names(tmp_path, methods):
    with pytest.raises(ValueError, match="by names other than 'teacher'"):
        Study(tmp_path / "figures.json").run(methods)
