"""Freezing: a teacher in inference form, which costs less and gives the same."""

from keras_distill.teachers.freezing.freeze import freeze

__all__ = ["freeze"]
