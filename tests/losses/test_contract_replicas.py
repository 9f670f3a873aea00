"""Every loss is the same on two replicas, each with a part of the batch, as on one."""

import keras
import numpy as np
import pytest
from keras import tree

import keras_distill as kd
from tests.losses.contract import ROWS, gradients, tensor

pytestmark = pytest.mark.long
EVEN, UNEVEN = (2, 2), (1, 3)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        *(pytest.param(row, UNEVEN, id=row.name) for row in ROWS),
        # Equal parts are a case of unequal ones: of some losses.
        *(pytest.param(row, EVEN, id=f"{row.name}-even") for row in ROWS[::6]),
    ],
)
def test_two_replicas_equal_one(row, parts, two_replicas):
    """The replicas' losses sum to that of the batch, their gradients concatenate to it."""
    import tensorflow as tf

    loss = row.loss()

    def step(*batch):
        if parts == UNEVEN:
            batch = tree.map_structure(any_number, batch)
        teacher, student, weight = batch
        count = keras.ops.shape(weight)[0]
        part = keras.ops.divide(count, kd.strategies.mean_count(count))
        return gradients(loss, teacher, student, sample_weight=part * weight)[:2]

    def distribute(tensor):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(tensor, parts)[context.replica_id_in_sync_group]
        )

    batch = row.draw("teacher", seed=1), row.draw(seed=2), tensor([1.0, 0.5, 2.0, 0.0])
    parts_of_batch = tree.map_structure(distribute, batch)
    value, grads = tf.function(lambda: two_replicas.run(step, parts_of_batch))()
    whole_value, whole_slopes = tf.function(step)(*batch)
    total = two_replicas.reduce("SUM", value, axis=None)
    np.testing.assert_allclose(total, whole_value, rtol=1e-5)
    for grad, whole in zip(grads, whole_slopes, strict=True):
        joined = np.concatenate(two_replicas.experimental_local_results(grad))
        np.testing.assert_allclose(joined, whole, rtol=1e-4, atol=1e-7)


def any_number(samples):
    """Hide the number of samples from the step."""
    import tensorflow as tf

    shape = (None, *samples.shape[1:])
    return tf.raw_ops.PlaceholderWithDefault(input=samples, shape=shape)
