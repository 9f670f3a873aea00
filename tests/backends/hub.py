"""Check that distillers take what tasks of keras_hub take, on the current backend.

    KERAS_BACKEND=jax python tests/backends/hub.py [TASK ...]

Prints a line for each task that gives what its own methods give.
"""

import sys

import keras
import numpy as np

import keras_distill as kd
from tests import hub_tasks

# One that takes images, one that takes texts, one that makes its labels of them.
THOROUGHLY = ("resnet", "bert", "gemma3")


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def divergence(teacher, student, temperature=4.0):
    """Return T^2 KL of each row, in float64."""
    p, q = (
        np.exp(z - z.max(-1, keepdims=True))
        for z in (np.asarray(z, "float64") / temperature for z in (teacher, student))
    )
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def preprocessed(model, x, y=None):
    """Return a batch of a model's own preprocessor, outside of any pipeline.

    A pipeline traces it, which takes a byte-pair tokenizer seconds each time.
    """
    batch = model.preprocessor(x) if y is None else model.preprocessor(x, y)
    batch = keras.tree.map_structure(keras.ops.convert_to_numpy, batch)
    return keras.utils.unpack_x_y_sample_weight(batch)


def logits(model, x):
    """Return a model's prediction of raw data."""
    return keras.Model.predict_on_batch(model, preprocessed(model, x)[0])


def check(name):
    """Compare a distiller's methods with the student's own."""
    student, teacher = hub_tasks.pair(name)
    x, y = hub_tasks.data_of(name)
    student.compile(keras.optimizers.SGD(0.0), cross_entropy())
    features, labels, weights = preprocessed(student, x, y)
    predicted = keras.Model.predict_on_batch(student, features)
    own = {"verbose": 0, "sample_weight": weights, "return_dict": True}
    own = keras.Model.evaluate(student, features, labels, **own)
    distiller = kd.Distiller(student, teacher)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy())
    given = None if y is None else (x, y)
    logs = distiller.fit(x, y, verbose=0, validation_data=given).history
    # At a learning rate of 0, where training and inference form are the same.
    np.testing.assert_allclose(logs["label_loss"], own["loss"], rtol=1e-5)
    if given:
        np.testing.assert_allclose(logs["val_loss"], own["loss"], rtol=1e-5)
    gap = divergence(logits(teacher, x), predicted)
    if y is None:
        mask = features.get("padding_mask", features.get("decoder_padding_mask"))
        gap = (gap * weights).sum() / mask.sum()
    assert gap.mean() > 0.01, "The fixture's models say the same."
    np.testing.assert_allclose(logs["soft_target"], gap.mean(), rtol=1e-3)
    found = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert found == own, (found, own)
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), predicted)
    if name in THOROUGHLY:
        check_own(student, x, y, own, predicted)
        check_batches(distiller, x, y, own["loss"], predicted)


def check_own(student, x, y, own, predicted):
    """Check that the student's own methods on raw data give the same."""
    np.testing.assert_array_equal(student.predict(x, verbose=0), predicted)
    assert student.evaluate(x, y, verbose=0, return_dict=True) == own
    history = student.fit(x, y, verbose=0).history
    np.testing.assert_allclose(history["loss"], own["loss"], rtol=1e-5)


def check_batches(distiller, x, y, loss, predicted):
    """Compare what a distiller makes of one batch with the student's own results."""
    batch = distiller.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(batch["label_loss"], loss, rtol=1e-4)
    tested = distiller.test_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(tested["loss"], loss, rtol=1e-4)
    few = distiller.predict_on_batch(x)
    np.testing.assert_allclose(few, predicted, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    for task in sys.argv[1:] or hub_tasks.TASKS:
        check(task)
        print("ok", task, flush=True)
