"""Data-free distillation: training on a teacher's recorded activations, without its data."""
