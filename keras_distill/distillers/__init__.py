"""Distillers: models whose training step learns from a teacher."""

from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.mutual_distiller import MutualDistiller
from keras_distill.distillers.self_distiller import SelfDistiller
from keras_distill.distillers.term import Term

__all__ = ["Distiller", "MutualDistiller", "SelfDistiller", "Term"]
