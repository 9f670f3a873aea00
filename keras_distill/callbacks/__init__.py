"""Callbacks for `fit` that look at a distiller while it trains."""

from keras_distill.callbacks.pulls import Pulls

__all__ = ["Pulls"]
