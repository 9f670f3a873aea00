"""The teacher's prediction with the wrong classes shuffled."""

import math

import keras
from keras import ops

from keras_distill import strategies
from keras_distill._backend import noise
from keras_distill._backend.number_checks import check_integers
from keras_distill.targets.target import ABSENT, Target


@keras.saving.register_keras_serializable(package="keras_distill")
class Permuted(Target):
    r"""The teacher's probabilities, all but the largest permuted at random.

    .. math::

        \mathrm{target}_k = p_{\pi(k)}, \quad p = \mathrm{softmax}(z_t / T)

    with a permutation pi that leaves the largest in place. This keeps the teacher's
    confidence and the shape of its prediction, but not which wrong classes it considers
    likely. A permutation depends only on the seed, the step and the position of the
    sample, and of the token, in the global batch, so that a run resumed from a
    checkpoint draws the same ones.

    Args:
        seed: seed of the permutations. Default 0.

    Example:
        >>> kd.losses.SoftTarget(1.0, target=kd.targets.Permuted())

    Source:
        Furlanello et al. 2018, Born-again neural networks (DKPP).
    """

    needs = ("step",)

    def __init__(self, seed: int = 0):
        check_integers(0, seed=seed)
        self.seed = seed

    def call(self, teacher, temperature, step):
        log_p = ops.log_softmax(teacher / temperature, axis=-1)
        classes = log_p.shape[-1]
        top = ops.one_hot(ops.argmax(log_p, axis=-1), classes, dtype="float32")
        # Both orders end in the top class, and then in those left out, in order; the
        # k-th of one goes to the other's k-th.
        increasing = ops.cast(ops.arange(classes), "float32") / classes
        random = noise.uniform(_global_indices(log_p), self.seed, step)
        order, shuffled = (
            ops.argsort(ops.where(log_p > ABSENT, x + 2.0 * top, 4.0 + increasing), -1)
            for x in (increasing, random)
        )
        inverse = ops.argsort(order, axis=-1)
        log_p = ops.take_along_axis(log_p, shuffled, axis=-1)
        return ops.take_along_axis(log_p, inverse, axis=-1)


def _global_indices(tensor):
    """Return a number for each entry of the global batch, `(B, ..., K)`.

    It counts classes, then samples, then steps, so that padding changes none of them.
    """
    batch, *steps, classes = ops.shape(tensor)
    samples = strategies.mean_count(batch) * strategies.replica_count()
    rows = strategies.local_rows(batch)
    steps = ops.arange(math.prod(steps)) * ops.cast(samples, rows.dtype)
    index = (rows[:, None] + steps[None])[..., None] * classes + ops.arange(classes)
    return ops.reshape(index, ops.shape(tensor))
