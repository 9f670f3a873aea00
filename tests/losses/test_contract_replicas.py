"""Half a batch on each of two replicas gives every loss what one of the whole does."""

import numpy as np
import pytest
from keras import tree

from tests.losses.contract import ROWS, gradients, tensor


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_two_replicas_equal_one(row, two_replicas):
    """The replicas' losses add up to the whole's, their gradients join to it."""
    import tensorflow as tf

    teacher, student = row.draw("teacher", seed=1), row.draw(seed=2)
    weight = tensor([1.0, 0.5, 2.0, 0.0])
    loss = row.loss()

    @tf.function
    def step(teacher, student, weight):
        return gradients(loss, teacher, student, sample_weight=weight)[:2]

    def share(tensor):
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: tf.split(tensor, 2)[context.replica_id_in_sync_group]
        )

    sides = (tree.map_structure(share, side) for side in (teacher, student, weight))
    value, slopes = two_replicas.run(step, tuple(sides))
    whole_value, whole_slopes = step(teacher, student, weight)
    added = two_replicas.reduce("SUM", value, axis=None)
    np.testing.assert_allclose(added, whole_value, rtol=1e-5)
    for slope, whole in zip(slopes, whole_slopes, strict=True):
        joined = np.concatenate(two_replicas.experimental_local_results(slope))
        np.testing.assert_allclose(joined, whole, rtol=1e-4, atol=1e-7)
