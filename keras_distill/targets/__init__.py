"""Targets: what a loss derives from the teacher's prediction and compares the student with."""

from keras_distill.targets.class_similarity import ClassSimilarity
from keras_distill.targets.hard_label import HardLabel
from keras_distill.targets.mixed import Mixed
from keras_distill.targets.permuted import Permuted
from keras_distill.targets.power_transform import PowerTransform
from keras_distill.targets.super_classes import SuperClasses
from keras_distill.targets.target import Target
from keras_distill.targets.top_k import TopK
from keras_distill.targets.true_class import TrueClass
from keras_distill.targets.uniform import Uniform
from keras_distill.targets.virtual_teacher import VirtualTeacher

__all__ = [
    "ClassSimilarity",
    "HardLabel",
    "Mixed",
    "Permuted",
    "PowerTransform",
    "SuperClasses",
    "Target",
    "TopK",
    "TrueClass",
    "Uniform",
    "VirtualTeacher",
]
