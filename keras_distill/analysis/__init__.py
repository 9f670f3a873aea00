"""Evaluation and analysis of teachers and students."""

# Evaluating a student.
from keras_distill.analysis.agreement import (
    Agreement,
    Calibration,
    agreement,
    by_class,
    calibration,
    plot_agreement,
    plot_by_class,
    plot_reliability,
)

# Attention maps.
from keras_distill.analysis.attention import (
    attention_maps,
    plot_attention_maps,
    plot_images,
)

# Class relations in a teacher.
from keras_distill.analysis.class_correlation import (
    ClassCorrelation,
    class_correlation,
    plot_class_correlation,
    weight_similarity,
)

# Costs and comparisons.
from keras_distill.analysis.compare import compare
from keras_distill.analysis.cost import Cost, cost
from keras_distill.analysis.early_exits import exits

# Knowledge transfer: gradients, last layer, knowledge points.
from keras_distill.analysis.gradient_rescaling import (
    GradientRescaling,
    gradient_rescaling,
    plot_gradient_rescaling,
)
from keras_distill.analysis.knowledge_points import (
    KnowledgePoints,
    Learning,
    knowledge_points,
    learning_of_points,
    plot_knowledge_points,
    plot_learning,
)
from keras_distill.analysis.last_layer import (
    LastLayer,
    last_layer_geometry,
    plot_last_layer,
)
from keras_distill.analysis.pixel_entropies import PixelEntropies, pixel_entropies
from keras_distill.analysis.report import report
from keras_distill.analysis.runs import Runs
from keras_distill.analysis.table import table
from keras_distill.analysis.won_and_lost import WonAndLost, won_and_lost
from keras_distill.analysis.wrong import wrong

__all__ = [
    "Agreement",
    "Calibration",
    "ClassCorrelation",
    "Cost",
    "GradientRescaling",
    "KnowledgePoints",
    "LastLayer",
    "Learning",
    "PixelEntropies",
    "Runs",
    "WonAndLost",
    "agreement",
    "attention_maps",
    "by_class",
    "calibration",
    "class_correlation",
    "compare",
    "cost",
    "exits",
    "gradient_rescaling",
    "knowledge_points",
    "last_layer_geometry",
    "learning_of_points",
    "pixel_entropies",
    "plot_agreement",
    "plot_attention_maps",
    "plot_by_class",
    "plot_class_correlation",
    "plot_gradient_rescaling",
    "plot_images",
    "plot_knowledge_points",
    "plot_last_layer",
    "plot_learning",
    "plot_reliability",
    "report",
    "table",
    "weight_similarity",
    "won_and_lost",
    "wrong",
]
