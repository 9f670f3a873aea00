"""Knowledge distillation for Keras 3."""

from keras_distill import (
    adapters,
    analysis,
    data,
    losses,
    models,
    strategies,
    taps,
    targets,
)
from keras_distill.cache import CachedTeacher

# Distillers: what `compile` and `fit` are called on.
from keras_distill.distillers import Distiller, Term

# A teacher at a lower cost.
from keras_distill.freezing import freeze

# What a term sees of a model.
from keras_distill.suggestions import TapPair, TapPairs, suggest_taps
from keras_distill.taps import Tap

# Teachers.
from keras_distill.teachers import EnsembleTeacher, Teacher

__version__ = "0.1.0"

__all__ = [
    "CachedTeacher",
    "Distiller",
    "EnsembleTeacher",
    "Tap",
    "TapPair",
    "TapPairs",
    "Teacher",
    "Term",
    "adapters",
    "analysis",
    "data",
    "freeze",
    "losses",
    "models",
    "strategies",
    "suggest_taps",
    "taps",
    "targets",
]
