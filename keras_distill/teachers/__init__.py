"""Teachers, which return the knowledge of a batch.

A teacher runs in inference form, its knowledge carries no gradient, and it is never
trained, counted or saved with the student. Teachers are plain objects, so that Keras does
not track the models inside them.
"""

from keras_distill.teachers.as_logits import as_logits
from keras_distill.teachers.base_teacher import BaseTeacher
from keras_distill.teachers.cache import CachedTeacher
from keras_distill.teachers.ensemble import Ensemble, EnsembleTeacher
from keras_distill.teachers.freezing import freeze
from keras_distill.teachers.function_teacher import FunctionTeacher
from keras_distill.teachers.given_teacher import GivenTeacher
from keras_distill.teachers.mean_teacher import MeanTeacher
from keras_distill.teachers.remote_peers import RemotePeers
from keras_distill.teachers.teacher import Teacher

__all__ = [
    "BaseTeacher",
    "CachedTeacher",
    "Ensemble",
    "EnsembleTeacher",
    "FunctionTeacher",
    "GivenTeacher",
    "MeanTeacher",
    "RemotePeers",
    "Teacher",
    "as_logits",
    "freeze",
]
