"""Strategies: on which devices and machines a distiller trains."""

from keras_distill.strategies.replicas import (
    gather,
    mean_count,
    own_rows,
    reducible,
    replica_count,
    worker,
)
from keras_distill.strategies.scopes import scope

__all__ = [
    "gather",
    "mean_count",
    "own_rows",
    "reducible",
    "replica_count",
    "scope",
    "worker",
]
