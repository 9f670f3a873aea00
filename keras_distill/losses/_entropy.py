"""Terms of divergences in log space, where a class of probability 0 adds nothing."""

from keras import ops

from keras_distill._backend.products import product
from keras_distill.targets.target import ABSENT


def entropy_terms(log_p, log_q):
    """Return `p (log p - log q)` of log-probabilities, 0 where p is 0.

    A class whose logit is -inf on both sides, or on that of p alone, has no value and no
    gradient; on that of q alone its term is infinite. No gradient is taken by p.
    """
    return product(ops.exp(log_p), log_p - log_q)


def absent_on_both(student, teacher):
    """Return where logits are -inf on both sides."""
    return ops.logical_and(student == ABSENT, teacher == ABSENT)


def at_label(label, log_probabilities):
    """Return the sum over classes weighted by labels, `(..., K)`, 0 * -inf being 0."""
    return ops.sum(ops.where(label > 0, label * log_probabilities, 0.0), axis=-1)
