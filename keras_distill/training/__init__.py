"""Training: what `fit` does around the step."""
