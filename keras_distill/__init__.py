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
from keras_distill.distillers import (
    Distiller,
    MutualDistiller,
    RemotePeers,
    SelfDistiller,
    Term,
)

# Teachers.
from keras_distill.ensembles import Ensemble, EnsembleTeacher
from keras_distill.following import MeanTeacher

# A teacher at a lower cost.
from keras_distill.freezing import freeze

# Schemes: several trainings, one after another.
from keras_distill.schemes import (
    Generation,
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

# What a term sees of a model.
from keras_distill.suggestions import TapPair, TapPairs, suggest_taps
from keras_distill.taps import Tap
from keras_distill.teachers import Teacher

__version__ = "0.1.0"

__all__ = [
    "CachedTeacher",
    "Distiller",
    "Ensemble",
    "EnsembleTeacher",
    "Generation",
    "MeanTeacher",
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
