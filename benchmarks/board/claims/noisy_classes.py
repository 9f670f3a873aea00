"""Synthetic related classes with noisy labels, as frames of speech have.

A label depends on all features of a point, and a network sees most of them.
"""

from collections.abc import Sequence

import keras

import keras_distill as kd

FEATURES, SEEN, CLASSES = 50, 43, 20
RELATED = {
    "similarity": 0.5,
    "difficulty": 1,
    "features": FEATURES,
    "classes": CLASSES,
    "super_classes": 5,
}


def points(split: str, count: int) -> kd.data.Samples:
    """Return points of a split, as `RelatedClasses.samples`, with the features seen."""
    drawn = kd.data.RelatedClasses(**RELATED).samples(split, count)
    return kd.data.Samples(drawn.images[:, :SEEN], drawn.labels)


def groups() -> list[list[int]]:
    """Return the classes of each super-class."""
    return kd.data.RelatedClasses(**RELATED).groups


def net(units: Sequence[int], seed: int) -> keras.Model:
    """Return a perceptron before it is trained."""
    keras.utils.set_random_seed(seed)
    return kd.models.mlp((SEEN,), CLASSES, units=units)
