"""Adapters: layers of a term that make the student's and the teacher's tensors comparable.

An adapter is a Keras layer, saved with the distiller and part of neither model. A layer
passed as `kd.Term(adapter=...)` is applied to the student and is trained. Those that a
loss infers may be applied to the teacher too: pooling, which has no weights; the
`Paraphraser` of `FactorTransfer`, trained in advance and frozen; and trained layers, if
the loss sets `trains_teacher_adapters`, as `Contrastive` does.
"""

from keras_distill.adapters.average_pool import AveragePool
from keras_distill.adapters.connector import Connector
from keras_distill.adapters.factors import Paraphraser, Translator
from keras_distill.adapters.gaussian_regressor import GaussianRegressor
from keras_distill.adapters.learned_temperature import LearnedTemperature
from keras_distill.adapters.match import Match, chain
from keras_distill.adapters.orthogonal_projection import OrthogonalProjection
from keras_distill.adapters.review_fusion import ReviewFusion
from keras_distill.adapters.tokens_to_map import TokensToMap
from keras_distill.adapters.unit_embedding import UnitEmbedding
from keras_distill.adapters.valid_convolution import ValidConvolution

__all__ = [
    "AveragePool",
    "Connector",
    "GaussianRegressor",
    "LearnedTemperature",
    "Match",
    "OrthogonalProjection",
    "Paraphraser",
    "ReviewFusion",
    "TokensToMap",
    "Translator",
    "UnitEmbedding",
    "ValidConvolution",
    "chain",
]
