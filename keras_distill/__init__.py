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

# Distillers: what `compile` and `fit` are called on.
from keras_distill.distillers import (
    Distiller,
    MutualDistiller,
    SelfDistiller,
    Term,
)

# Schemes: several trainings, one after another.
from keras_distill.schemes import (
    Generation,
    Merged,
    Metadata,
    ParaphraserStage,
    SpecialistEnsemble,
    Stage,
    choose_assistants,
    cluster_classes,
    copy_weights,
    fit_generations,
    fit_specialists,
    fit_stages,
    mixed_network,
    recasting_stages,
    reconstruct,
    record_metadata,
)
from keras_distill.taps import Tap

# What a term sees of a model.
from keras_distill.taps.suggestions import TapPair, TapPairs, suggest_taps
from keras_distill.teachers.cache import CachedTeacher
from keras_distill.teachers.copies import MeanTeacher

# Teachers.
from keras_distill.teachers.ensemble import Ensemble, EnsembleTeacher

# A teacher at a lower cost.
from keras_distill.teachers.freezing import freeze
from keras_distill.teachers.remote_peers import RemotePeers
from keras_distill.teachers.teacher import Teacher

__version__ = "0.1.0"

__all__ = [
    "CachedTeacher",
    "Distiller",
    "Ensemble",
    "EnsembleTeacher",
    "Generation",
    "MeanTeacher",
    "Merged",
    "Metadata",
    "MutualDistiller",
    "ParaphraserStage",
    "RemotePeers",
    "SelfDistiller",
    "SpecialistEnsemble",
    "Stage",
    "Tap",
    "TapPair",
    "TapPairs",
    "Teacher",
    "Term",
    "adapters",
    "analysis",
    "choose_assistants",
    "cluster_classes",
    "copy_weights",
    "data",
    "fit_generations",
    "fit_specialists",
    "fit_stages",
    "freeze",
    "losses",
    "mixed_network",
    "models",
    "recasting_stages",
    "reconstruct",
    "record_metadata",
    "strategies",
    "suggest_taps",
    "taps",
    "targets",
]
