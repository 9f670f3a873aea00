"""Knowledge distillation for Keras 3."""

# First, as it says which extra to install where Keras has no backend.
from keras_distill import _backend as _backend

# isort: split
from keras_distill import (
    adapters,
    analysis,
    callbacks,
    data,
    losses,
    models,
    optimizers,
    strategies,
    taps,
    targets,
)

# Suggestions of weights and terms for a pair of models.
from keras_distill.analysis.suggested_terms import SuggestedTerms, suggest_terms
from keras_distill.analysis.suggested_weights import SuggestedWeights, suggest_weights

# Distillers: what `compile` and `fit` are called on.
from keras_distill.distillers import Distiller, MutualDistiller, SelfDistiller, Term

# Schedules of weights and temperatures.
from keras_distill.losses.schedules import ScaledSchedule

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
    reuse_teacher_head,
)

# Taps: which tensors of a model a term compares.
from keras_distill.taps import Tap
from keras_distill.taps.suggestions import TapPair, TapPairs, suggest_taps

# Teachers.
from keras_distill.teachers import (
    BaseTeacher,
    CachedTeacher,
    Ensemble,
    EnsembleTeacher,
    FunctionTeacher,
    GivenTeacher,
    MeanTeacher,
    RemotePeers,
    Teacher,
    as_logits,
    freeze,
)

# Training: a callback for `fit`.
from keras_distill.training import BackupAndRestore

__version__ = "0.1.0"

__all__ = [
    "BackupAndRestore",
    "BaseTeacher",
    "CachedTeacher",
    "Distiller",
    "Ensemble",
    "EnsembleTeacher",
    "FunctionTeacher",
    "Generation",
    "GivenTeacher",
    "MeanTeacher",
    "Merged",
    "Metadata",
    "MutualDistiller",
    "ParaphraserStage",
    "RemotePeers",
    "ScaledSchedule",
    "SelfDistiller",
    "SpecialistEnsemble",
    "Stage",
    "SuggestedTerms",
    "SuggestedWeights",
    "Tap",
    "TapPair",
    "TapPairs",
    "Teacher",
    "Term",
    "adapters",
    "analysis",
    "as_logits",
    "callbacks",
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
    "optimizers",
    "recasting_stages",
    "reconstruct",
    "record_metadata",
    "reuse_teacher_head",
    "strategies",
    "suggest_taps",
    "suggest_terms",
    "suggest_weights",
    "taps",
    "targets",
]
