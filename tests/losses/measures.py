"""Distances of what the methods transfer, in NumPy and unlike the losses."""

import numpy as np

from tests import formulas


def disagreement(teacher, student):
    """Total variation distance of the predictions."""
    p, q = (np.exp(z - z.max(-1, keepdims=True)) for z in (teacher, student))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return 0.5 * np.abs(p - q).sum(-1).mean()


def standardized_disagreement(teacher, student):
    """Total variation distance of the predictions from standardized logits."""
    return disagreement(
        *(
            (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)
            for z in (teacher, student)
        )
    )


def label_disagreement(teacher, student):
    """Mean difference of the probabilities of independent labels."""
    p, q = (1 / (1 + np.exp(-z)) for z in (teacher, student))
    return np.abs(p - q).mean()


def distance(teacher, student):
    """Mean absolute difference."""
    return np.abs(teacher - student).mean()


def map_angle(fold):
    """One minus the cosine of the attention maps, `fold` of the features."""

    def measure(teacher, student):
        a, b = (fold(np.abs(f)).reshape(len(f), -1) for f in (teacher, student))
        norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        return (1 - (a * b).sum(-1) / norms).mean()

    return measure


def channel_angle(teacher, student):
    """Mean angle between the channels' vectors at a location, in radians."""
    norms = (np.linalg.norm(f, axis=-1) for f in (teacher, student))
    cosines = (teacher * student).sum(-1) / np.prod(list(norms), axis=0)
    return np.arccos(cosines.clip(-1, 1)).mean()


def unlike_channel_values(teacher, student):
    """One minus the mean correlation of a channel's values over samples and locations."""
    t, s = (f.reshape(-1, f.shape[-1]).T for f in (teacher, student))
    return 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(t, s, strict=True)])


def unlike_channels(teacher, student):
    """Mean difference of the cosines between channels, as patterns over locations."""

    def cosines(f):
        flat = f.reshape(len(f), -1, f.shape[-1])
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        return np.einsum("bpc,bpd->bcd", flat, flat)

    return np.abs(cosines(teacher) - cosines(student)).mean()


def flow_distance(teacher, student):
    """Mean absolute difference of the correlations between two layers."""
    flows = [
        np.einsum("bijm,bijn->bmn", first, second) / first[0, :, :, 0].size
        for first, second in (teacher, student)
    ]
    return np.abs(flows[0] - flows[1]).mean()


def target_distance(formula):
    """Total variation distance of the prediction at T = 4 from a target in NumPy."""

    def measure(teacher, student):
        q = formulas.softmax(student / 4.0)
        return 0.5 * np.abs(formula(teacher) - q).sum(-1).mean()

    return measure


def power_distance(exponent):
    """Total variation distance of the prediction from the teacher's to a power."""

    def measure(teacher, student):
        p = formulas.power_transform(teacher, exponent, 1.0)
        return 0.5 * np.abs(p - formulas.softmax(student)).sum(-1).mean()

    return measure


def enhanced_distance(exponent):
    """Total variation distance from the teacher's prediction, enhanced on its class."""

    def measure(teacher, student):
        p, top = (
            formulas.softmax(teacher),
            np.eye(teacher.shape[-1])[teacher.argmax(-1)],
        )
        target = np.where(top > 0, (1 + p) ** exponent, p)
        target = target / target.sum(-1, keepdims=True)
        return 0.5 * np.abs(target - formulas.softmax(student)).sum(-1).mean()

    return measure


def uncorrelated(teacher, student):
    """One minus Pearson's correlation of the predictions over the classes."""
    sides = formulas.softmax(teacher), formulas.softmax(student)
    return 1 - np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(*sides, strict=True)])


def unlike_pairs(teacher, student):
    """One minus the correlation of all distances between samples."""
    sides = [f.reshape(len(f), -1) for f in (teacher, student)]
    t, s = (np.linalg.norm(f[:, None] - f[None], axis=-1).ravel() for f in sides)
    return 1 - np.corrcoef(t, s)[0, 1]


def other_side(teacher, student):
    """Fraction of neurons on the opposite side of zero."""
    return np.mean((teacher > 0) != (student > 0))


def unexplained(teacher, student):
    """Fraction of the teacher's variance unexplained by a linear map of the student's."""
    t, s = (f.reshape(-1, f.shape[-1]) for f in (teacher, student))
    s = np.concatenate([s, np.ones((len(s), 1))], -1)
    left = t - s @ np.linalg.lstsq(s, t, rcond=None)[0]
    return (left**2).sum() / ((t - t.mean(0)) ** 2).sum()


def unlike_patterns(teacher, student):
    """Distance of the mean products of channel patterns at all pairs of locations."""

    def products(f):
        flat = f.reshape(len(f), -1, f.shape[-1])
        flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        return np.einsum("bpc,bqc->bpq", flat, flat) / flat.shape[-1]

    return np.abs(products(teacher) - products(student)).mean()


def doubt(teacher, student):
    """One minus the student's probability of the teacher's class."""
    top = teacher.argmax(-1)
    return 1 - formulas.softmax(student)[np.arange(len(top)), top].mean()


def confidence_gap(teacher, student):
    """Difference of the probabilities of the teacher's class."""
    rows, top = np.arange(len(teacher)), teacher.argmax(-1)
    p, q = formulas.softmax(teacher), formulas.softmax(student)
    return np.abs(p[rows, top] - q[rows, top]).mean()


def missed_first(teacher, student):
    """Fraction of the teacher's top two classes that are not the student's."""
    teacher, student = (np.argsort(-z)[:, :2] for z in (teacher, student))
    return 1 - np.mean(
        [len(set(a) & set(b)) / 2 for a, b in zip(teacher, student, strict=True)]
    )
