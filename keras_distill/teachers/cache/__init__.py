"""The cache: a teacher's outputs on disk, computed once and looked up by sample id."""

from keras_distill.teachers.cache.cached_teacher import CachedTeacher

__all__ = ["CachedTeacher"]
