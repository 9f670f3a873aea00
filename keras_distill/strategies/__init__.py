"""Strategies: the devices and machines that a distiller trains on."""

from keras_distill.strategies.replicas import (
    gather,
    local_rows,
    mean_count,
    reducible,
    replica_count,
    worker,
)
from keras_distill.strategies.scopes import scope

__all__ = [
    "gather",
    "local_rows",
    "mean_count",
    "reducible",
    "replica_count",
    "scope",
    "worker",
]
