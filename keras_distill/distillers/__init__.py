"""Distillers: models whose training step learns from a teacher."""

from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term

__all__ = ["Distiller", "Term"]
