"""Divergences of distributions that are close to each other, without cancellation.

At a temperature T the logarithms of two predictions differ by about 1 / T, and their
divergence is about 1 / T^2, far below the rounding errors of the logarithms once T is
high. With c_k the difference `log q_k - log p_k` less its mean under p, it is

    KL(p || q) = log(1 + sum_k p_k (e^c_k - 1 - c_k)),

in which no term is negative. The constants of log p and log q cancel exactly.
"""

from keras import ops

from keras_distill.losses._entropy import absent_on_both, at_label
from keras_distill.targets.target import LOG_ZERO

# Rows whose differences span less than this are close.
SPAN = 1.0


def where_close(values, close, others):
    """Return values, `(...)`, of rows that are close, `(..., 1)`, and others elsewhere."""
    return ops.where(close[..., 0], values, others)


def gaps(log_p, log_q):
    """Return `log q - log p`, 0 in rows that are not close, and which are, `(..., 1)`.

    Args:
        log_p: logarithms up to a constant, `(..., K)`.
        log_q: those of the other distribution.
    """
    gap = ops.where(absent_on_both(log_q, log_p), 0.0, log_q - log_p)
    most, least = (f(gap, axis=-1, keepdims=True) for f in (ops.max, ops.min))
    # False where a class is -inf on one side alone.
    close = most - least < SPAN
    return ops.where(close, gap, 0.0), close


def divergence(log_p, log_q):
    """Return `KL(p || q)` of close rows, `(...)`, and which are, `(..., 1)`."""
    gap, close = gaps(log_p, log_q)
    return _about_mean(ops.softmax(log_p, axis=-1), gap)[1], close


def difference(log_p, log_q):
    """Return `q - p`, `(..., K)`, whether rows are close or not."""
    p, q = (ops.softmax(x, axis=-1) for x in (log_p, log_q))
    gap, close = gaps(log_p, log_q)
    mean, _ = _about_mean(p, gap)
    grown = ops.expm1(gap - mean)
    more = ops.sum(p * grown, axis=-1, keepdims=True)
    return ops.where(close, p * (grown - more) / (1.0 + more), q - p)


def jensen_shannon(log_p, log_q):
    """Return `(KL(p || m) + KL(q || m)) / 2` of close rows, and which are."""
    gap, close = gaps(log_p, log_q)
    p = ops.softmax(log_p, axis=-1)
    mean, value = _about_mean(p, gap)
    # x = log q - log p; m / p = (1 + e^x) / 2 = e^(x / 2) cosh(x / 2).
    x = gap - mean - value[..., None]
    grown, log_cosh = ops.expm1(x), ops.log1p(2.0 * ops.square(ops.sinh(x / 4)))
    terms = x / 2 * grown - (2.0 + grown) * log_cosh
    return 0.5 * ops.sum(p * terms, axis=-1), close


def binary(p, rest, gap):
    """Return the divergence of yes or no, for log-odds that differ by a gap.

    Args:
        p: probability of yes, `(...)`.
        rest: `1 - p`.
        gap: the second distribution's log-odds less the first's.
    """
    return ops.log1p(p * _above(rest * gap) + rest * _above(-p * gap))


def decoupled(log_p, log_q, label):
    """Return the divergences on the label against the rest, and among the rest.

    Args:
        log_p: logarithms up to a constant, `(..., K)`.
        log_q: those of the other distribution.
        label: one-hot, `(..., K)`.

    Returns:
        The two, `(...)`, of close rows, and which are, `(..., 1)`.
    """
    gap, close = gaps(log_p, log_q)
    others = ops.softmax(ops.where(label > 0, LOG_ZERO, log_p), axis=-1)
    mean, among = _about_mean(others, gap)
    p = at_label(label, ops.softmax(log_p, axis=-1))
    odds = at_label(label, gap) - mean[..., 0] - among
    return binary(p, 1.0 - p, odds), among, close


def deviations(logits):
    """Return `p - 1 / K` of the softmax of logits, `(..., K)`.

    It is exact where the logits are close to each other, and loses nothing elsewhere.
    """
    classes = logits.shape[-1]
    even = logits - ops.max(logits, axis=-1, keepdims=True)
    close = ops.min(even, axis=-1, keepdims=True) > -SPAN
    grown = ops.expm1(ops.where(close, even, 0.0))
    mean = ops.mean(grown, axis=-1, keepdims=True)
    exact = (grown - mean) / (classes * (1.0 + mean))
    return ops.where(close, exact, ops.softmax(logits, axis=-1) - 1.0 / classes)


def _about_mean(p, gap):
    """Return the mean of the gap under p, `(..., 1)`, and the divergence, `(...)`."""
    mean = ops.sum(p * gap, axis=-1, keepdims=True)
    return mean, ops.log1p(ops.sum(p * _above(gap - mean), axis=-1))


def _above(c):
    """Return `e^c - 1 - c`, which is `c^2 / 2` for small c."""
    small = ops.abs(c) < 0.1
    least = ops.where(small, c, 0.0)
    series = 1 / 2 + least * (1 / 6 + least * (1 / 24 + least / 120))
    return ops.where(small, ops.square(least) * series, ops.expm1(c) - c)
