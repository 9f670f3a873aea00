"""Figures of matplotlib, which is imported when the first one is created."""

from keras_distill._backend.optional import require


def new_figure(width: float, height: float, *grid: int):
    """Return a figure and its axes: one, or an array of the grid's rows and columns."""
    module = require("matplotlib.figure", "A figure")
    figure = module.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*grid, squeeze=not grid)
