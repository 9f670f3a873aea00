"""The callback that measures gradients while training, against closed forms."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.analysis.test_suggested_weights import (
    LABELS,
    distiller_of,
    gradients,
    problem,
)


def kernels_at(steps, x, y, kernels, size, rate=0.1):
    """Return the student's kernel after each number of steps, in float64."""
    kernel, found = kernels[0], {}
    for step in range(max(steps) + 1):
        if step in steps:
            found[step] = kernel
        rows = slice(step * size % len(x), step * size % len(x) + size)
        parts = gradients(x[rows], y[rows], [kernel, kernels[1]])
        total = LABELS * parts["label_loss"] + parts["soft_target"]
        kernel = kernel - rate * (total + 0.1 * parts["logit_regression"])
    return found


def test_measurements_equal_the_closed_form_at_their_steps():
    x, y, kernels = problem()
    pulls = kd.callbacks.Pulls(every=3, batches=[(x, y)])
    logs = (
        distiller_of(kernels)
        .fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[pulls])
        .history
    )
    assert [row["step"] for row in pulls.history] == [3, 6]
    at = kernels_at([3, 6], x, y, kernels, 16)
    for row in pulls.history:
        parts = gradients(x, y, [at[row["step"]], kernels[1]])
        labels = parts["label_loss"]
        for name, w in (("label_loss", LABELS), ("logit_regression", 0.1)):
            norm = np.linalg.norm(parts[name])
            assert row[f"pull/{name}"] == pytest.approx(w * norm, rel=1e-4)
        soft = parts["soft_target"]
        cosine = (soft * labels).sum() / np.linalg.norm(soft) / np.linalg.norm(labels)
        assert row["cosine/soft_target"] == pytest.approx(cosine, rel=1e-3)
    assert logs["cosine/soft_target"] == [
        x["cosine/soft_target"] for x in pulls.history
    ]
    assert len(pulls.plot().axes) == 2


def test_a_later_fit_logs_its_own_measurements():
    x, y, kernels = problem()
    pulls = kd.callbacks.Pulls(every=3, batches=[(x, y)])
    distiller, logs = distiller_of(kernels), []
    for count in (48, 16, 48):
        given = x[:count], y[:count], 16
        done = distiller.fit(*given, shuffle=False, verbose=0, callbacks=[pulls])
        logs.append(done.history)
    assert "pull/soft_target" in logs[0] and "pull/soft_target" not in logs[1]
    assert [row["step"] for row in pulls.history] == [3, 7]
    assert logs[2]["pull/soft_target"] == [pulls.history[1]["pull/soft_target"]]


def test_it_measures_each_epoch_and_changes_nothing():
    x, y, kernels = problem()
    students = []
    for callbacks in ([], [kd.callbacks.Pulls()]):
        keras.utils.set_random_seed(0)
        distiller = distiller_of(kernels)
        distiller.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
        students.append(distiller.student.get_weights()[0])
    np.testing.assert_array_equal(*students)
    assert [row["step"] for row in callbacks[0].history] == [2, 4]


def test_tensorboard_gets_them(tmp_path):
    x, y, kernels = problem()
    board = keras.callbacks.TensorBoard(tmp_path)
    callbacks = [kd.callbacks.Pulls(), board]
    distiller_of(kernels).fit(x, y, verbose=0, callbacks=callbacks)
    written = b"".join(f.read_bytes() for f in tmp_path.rglob("events*"))
    assert b"pull/soft_target" in written


def test_what_it_does_not_take():
    x, y, kernels = problem()
    for every in (0, -1, "step", True, 1.5):
        with pytest.raises(ValueError, match="every is 'epoch' or a number of steps"):
            kd.callbacks.Pulls(every=every)
    model = distiller_of(kernels).student
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(TypeError, match=r"kd.Distiller; got a Functional"):
        model.fit(x, y, verbose=0, callbacks=[kd.callbacks.Pulls()])
    with pytest.raises(ValueError, match="Nothing was measured"):
        kd.callbacks.Pulls().plot()
