"""Looking at the result: errors, what a model costs, figures of many runs, tables."""

from keras_distill.analysis.cost import Cost, cost
from keras_distill.analysis.runs import Runs
from keras_distill.analysis.table import table
from keras_distill.analysis.wrong import wrong

__all__ = ["Cost", "Runs", "cost", "table", "wrong"]
