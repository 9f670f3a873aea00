"""Distillation losses, from a teacher's and a student's tensors to a value per sample.

Each takes `name`, `reduction` and `dtype`, as `DistillationLoss` does.
"""

from keras_distill.losses.activation_boundary import ActivationBoundary
from keras_distill.losses.angle_relation import AngleRelation
from keras_distill.losses.attention_map import AttentionMap
from keras_distill.losses.binary_soft_target import BinarySoftTarget
from keras_distill.losses.channel_correlation import ChannelCorrelation
from keras_distill.losses.class_triplet import ClassTriplet
from keras_distill.losses.conditional_probability import ConditionalProbability
from keras_distill.losses.confidence_weighted_label import ConfidenceWeightedLabel
from keras_distill.losses.contrastive import Contrastive
from keras_distill.losses.correlation_congruence import CorrelationCongruence
from keras_distill.losses.cosine_distance import CosineDistance
from keras_distill.losses.curriculum_temperature import CurriculumTemperature
from keras_distill.losses.decoupled_target import DecoupledTarget
from keras_distill.losses.distance_relation import DistanceRelation
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.divergence import Divergence
from keras_distill.losses.enhanced_target import EnhancedTarget
from keras_distill.losses.factor_transfer import FactorTransfer
from keras_distill.losses.flip_symmetry import FlipSymmetry
from keras_distill.losses.flow_matrix import FlowMatrix
from keras_distill.losses.full_activation import FullActivation
from keras_distill.losses.gradient_attention import GradientAttention
from keras_distill.losses.hard_rank import HardRank
from keras_distill.losses.hint import Hint
from keras_distill.losses.jacobian import Jacobian
from keras_distill.losses.jensen_shannon import JensenShannon
from keras_distill.losses.logit_regression import LogitRegression
from keras_distill.losses.margin_activation import MarginActivation
from keras_distill.losses.multi_level_logits import MultiLevelLogits
from keras_distill.losses.neuron_selectivity import NeuronSelectivity
from keras_distill.losses.normalized_hint import NormalizedHint
from keras_distill.losses.orthogonal_hint import OrthogonalHint
from keras_distill.losses.output_regression import OutputRegression
from keras_distill.losses.power_weighted_target import PowerWeightedTarget
from keras_distill.losses.prediction_correlation import PredictionCorrelation
from keras_distill.losses.ranking import Ranking
from keras_distill.losses.reverse_soft_target import ReverseSoftTarget
from keras_distill.losses.review import Review
from keras_distill.losses.scale_decoupled_logits import ScaleDecoupledLogits
from keras_distill.losses.similarity_matrix import SimilarityMatrix
from keras_distill.losses.singular_flow import SingularFlow
from keras_distill.losses.soft_rank import SoftRank
from keras_distill.losses.soft_target import SoftTarget
from keras_distill.losses.standardized_logits import StandardizedLogits
from keras_distill.losses.variational_information import VariationalInformation
from keras_distill.losses.verification import Verification
from keras_distill.losses.vocabulary_soft_target import VocabularySoftTarget
from keras_distill.losses.voted_triplet import VotedTriplet
from keras_distill.losses.weighted_soft_target import WeightedSoftTarget

__all__ = [
    "ActivationBoundary",
    "AngleRelation",
    "AttentionMap",
    "BinarySoftTarget",
    "ChannelCorrelation",
    "ClassTriplet",
    "ConditionalProbability",
    "ConfidenceWeightedLabel",
    "Contrastive",
    "CorrelationCongruence",
    "CosineDistance",
    "CurriculumTemperature",
    "DecoupledTarget",
    "DistanceRelation",
    "DistillationLoss",
    "Divergence",
    "EnhancedTarget",
    "FactorTransfer",
    "FlipSymmetry",
    "FlowMatrix",
    "FullActivation",
    "GradientAttention",
    "HardRank",
    "Hint",
    "Jacobian",
    "JensenShannon",
    "LogitRegression",
    "MarginActivation",
    "MultiLevelLogits",
    "NeuronSelectivity",
    "NormalizedHint",
    "OrthogonalHint",
    "OutputRegression",
    "PowerWeightedTarget",
    "PredictionCorrelation",
    "Ranking",
    "ReverseSoftTarget",
    "Review",
    "ScaleDecoupledLogits",
    "SimilarityMatrix",
    "SingularFlow",
    "SoftRank",
    "SoftTarget",
    "StandardizedLogits",
    "VariationalInformation",
    "Verification",
    "VocabularySoftTarget",
    "VotedTriplet",
    "WeightedSoftTarget",
]
