"""Training: what `fit` does around the step."""

from keras_distill.training.backup import BackupAndRestore

__all__ = ["BackupAndRestore"]
