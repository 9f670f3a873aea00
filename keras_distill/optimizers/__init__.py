"""Optimizers that treat the gradients of labels and of distillation apart."""

from keras_distill.optimizers.distillation_oriented_sgd import DistillationOrientedSGD

__all__ = ["DistillationOrientedSGD"]
