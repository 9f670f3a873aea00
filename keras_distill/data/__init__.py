"""Datasets by name and synthetic ones, batches with augmentation, and transfer sets."""

from keras_distill.data.batches import batches
from keras_distill.data.characters import Characters, load_characters
from keras_distill.data.load import load
from keras_distill.data.related_classes import RelatedClasses
from keras_distill.data.samples import ImageSet, Samples
from keras_distill.data.textured_digits import textured_digits
from keras_distill.data.views import Views

__all__ = [
    "Characters",
    "ImageSet",
    "RelatedClasses",
    "Samples",
    "Views",
    "batches",
    "load",
    "load_characters",
    "textured_digits",
]
