"""Check that distillers take what tasks of keras_hub take, on the current backend.

    KERAS_BACKEND=jax python tests/backends/hub.py [TASK ...]

Prints a line for each task that gives what its own methods give.
"""

import sys

import keras
import numpy as np

import keras_distill as kd
from tests import hub_tasks


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


def as_numpy(x):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, x)


def apart(model, x):
    """Return a model's prediction, its preprocessor called outside of any pipeline."""
    features, *_ = keras.utils.unpack_x_y_sample_weight(model.preprocessor(x))
    return as_numpy(model(features, training=False))


def check(name):
    """Compare a distiller's methods with the student's own."""
    student, teacher = hub_tasks.pair(name)
    x, y = hub_tasks.data_of(name)
    distiller = kd.Distiller(student, teacher)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy())
    student.compile(keras.optimizers.SGD(0.0), cross_entropy())
    predicted = student.predict(x, verbose=0)
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), predicted)
    evaluated = student.evaluate(x, y, verbose=0, return_dict=True)
    found = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert found == evaluated, (found, evaluated)
    own = student.fit(x, y, verbose=0).history
    given = None if y is None else (x, y)
    logs = distiller.fit(x, y, verbose=0, validation_data=given).history
    np.testing.assert_allclose(logs["label_loss"], own["loss"], rtol=1e-5)
    if given:
        np.testing.assert_allclose(logs["val_loss"], evaluated["loss"], rtol=1e-5)
    gap = divergence(apart(teacher, x), predicted)
    if y is None:
        features, _, weights = map(as_numpy, student.preprocessor(x))
        mask = features.get("padding_mask", features.get("decoder_padding_mask"))
        gap = (gap * weights).sum() / mask.sum()
    assert gap.mean() > 0.01, "The fixture's models say the same."
    np.testing.assert_allclose(logs["soft_target"], gap.mean(), rtol=1e-3)
    batch = distiller.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(batch["label_loss"], own["loss"][0], rtol=1e-4)
    tested = distiller.test_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(tested["loss"], evaluated["loss"], rtol=1e-4)
    few = distiller.predict_on_batch(x)
    np.testing.assert_allclose(few, predicted, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    for task in sys.argv[1:] or hub_tasks.TASKS:
        check(task)
        print("ok", task, flush=True)
