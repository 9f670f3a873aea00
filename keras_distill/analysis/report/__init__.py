"""Report on a teacher and its students as a table and an HTML page."""

from keras_distill.analysis.report.report import report

__all__ = ["report"]
