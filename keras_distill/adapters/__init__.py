"""Adapters: the trainable parts that make a student's tensor fit the teacher's.

An adapter is an ordinary Keras layer on the student's side of a term, trained and
saved with the distiller and left out of the student. Only pooling, which has no
weights, may also stand on the teacher's side.
"""

from keras_distill.adapters.average_pool import AveragePool
from keras_distill.adapters.connector import Connector
from keras_distill.adapters.factors import Paraphraser, Translator
from keras_distill.adapters.gaussian_regressor import GaussianRegressor
from keras_distill.adapters.match import Match, chain
from keras_distill.adapters.review_fusion import ReviewFusion
from keras_distill.adapters.unit_embedding import UnitEmbedding
from keras_distill.adapters.valid_convolution import ValidConvolution

__all__ = [
    "AveragePool",
    "Connector",
    "GaussianRegressor",
    "Match",
    "Paraphraser",
    "ReviewFusion",
    "Translator",
    "UnitEmbedding",
    "ValidConvolution",
    "chain",
]
