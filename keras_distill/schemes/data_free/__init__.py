"""Data-free distillation: a teacher's activations in place of its data."""
