"""Looking at the result: what a model costs, and tables of figures."""

from keras_distill.analysis.cost import Cost, cost
from keras_distill.analysis.table import table

__all__ = ["Cost", "cost", "table"]
