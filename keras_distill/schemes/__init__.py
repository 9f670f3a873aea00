"""Schemes: several consecutive trainings that result in a plain student."""

from keras_distill.schemes.assistants import choose_assistants
from keras_distill.schemes.data_free.metadata import Metadata, record_metadata
from keras_distill.schemes.data_free.reconstruction import reconstruct
from keras_distill.schemes.fit_stages import fit_stages
from keras_distill.schemes.generations import Generation, fit_generations
from keras_distill.schemes.recasting import (
    copy_weights,
    mixed_network,
    recasting_stages,
)
from keras_distill.schemes.reused_head import reuse_teacher_head
from keras_distill.schemes.specialists.class_groups import cluster_classes
from keras_distill.schemes.specialists.fit_specialists import fit_specialists
from keras_distill.schemes.specialists.merged import Merged
from keras_distill.schemes.specialists.specialist_ensemble import SpecialistEnsemble
from keras_distill.schemes.stages import ParaphraserStage, Stage

__all__ = [
    "Generation",
    "Merged",
    "Metadata",
    "ParaphraserStage",
    "SpecialistEnsemble",
    "Stage",
    "choose_assistants",
    "cluster_classes",
    "copy_weights",
    "fit_generations",
    "fit_specialists",
    "fit_stages",
    "mixed_network",
    "recasting_stages",
    "reconstruct",
    "record_metadata",
    "reuse_teacher_head",
]
