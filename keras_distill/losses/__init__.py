"""Distillation losses: teacher's and student's tensors in, one value per sample out."""

from keras_distill.losses.attention_map import AttentionMap
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.flow_matrix import FlowMatrix
from keras_distill.losses.hint import Hint
from keras_distill.losses.logit_regression import LogitRegression
from keras_distill.losses.soft_target import SoftTarget

__all__ = [
    "AttentionMap",
    "DistillationLoss",
    "FlowMatrix",
    "Hint",
    "LogitRegression",
    "SoftTarget",
]
