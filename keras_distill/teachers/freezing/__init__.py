"""Freezing: a teacher in inference form, which is cheaper and has the same outputs."""

from keras_distill.teachers.freezing.freeze import freeze

__all__ = ["freeze"]
