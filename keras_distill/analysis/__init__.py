"""Looking at the result: errors, costs, figures of many runs, methods side by side."""

from keras_distill.analysis.compare import compare
from keras_distill.analysis.cost import Cost, cost
from keras_distill.analysis.exits import exits
from keras_distill.analysis.runs import Runs
from keras_distill.analysis.table import table
from keras_distill.analysis.wrong import wrong

__all__ = ["Cost", "Runs", "compare", "cost", "exits", "table", "wrong"]
