"""Zhao et al. 2022: decoupled knowledge distillation and related losses.

    python examples/zhao2022_decoupled.py --test
    python examples/zhao2022_decoupled.py --dataset cifar10_jpeg --train-size 5000

Losses on logits (DKD, DIST by Huang et al. 2022, other divergences, and a ranking by
Tang, Wang 2018) and the feature losses that DKD is compared with, OFD (Heo et al. 2019b)
and ReviewKD (Chen et al. 2021); trained as in `compare.py`. Small-scale stand-in:
residual networks of 20 and 8 layers instead of 56 and 20; the student sees few samples,
the teacher all. Nothing was tuned.
"""

import compare

# Accuracy on CIFAR-100 in %, ResNet-56 to ResNet-20; from memory, not checked against the
# papers.
PAPER = {
    "teacher": 72.34,
    "alone": 69.06,
    "DKD": 71.97,
    "DIST": 71.75,
    "OFD": 70.98,
    "ReviewKD": 71.89,
    "KD": 70.66,
    "reverse KL": None,
    "Jensen-Shannon": None,
    "logits": None,
    "ranking": None,
}

if __name__ == "__main__":
    compare.main("runs/zhao2022_decoupled", PAPER, "paper, CIFAR-100 (recalled)")
