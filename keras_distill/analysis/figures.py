"""Figures of matplotlib, which is imported when the first one is created."""


def new_figure(width: float, height: float, *grid: int):
    """Return a figure and its axes: one, or an array of the grid's rows and columns."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*grid, squeeze=not grid)
