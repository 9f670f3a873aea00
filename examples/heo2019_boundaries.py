"""Heo et al. 2019: activation boundaries compared with other feature losses.

    python examples/heo2019_boundaries.py --test
    python examples/heo2019_boundaries.py --dataset cifar10_jpeg --train-size 5000

The losses of the paper's table, including Jacobian matching (Srinivas, Fleuret 2018), on
little data, where the paper's gain is largest; trained as in `compare.py`. Small-scale
stand-in: residual networks of 20 and 8 layers instead of WRN-22-4 and WRN-16-2; the
student sees few samples, the teacher all. Nothing was tuned.
"""

import compare

# Accuracy in % (100 minus the error) with a tenth of CIFAR-10.
PAPER = {
    "AB": 86.91,
    "Jacobian": 84.97,
    "KD": 78.79,
    "FitNet": 78.58,
    "FSP": 79.20,
    "AT": 84.39,
}

if __name__ == "__main__":
    compare.main("runs/heo2019_boundaries", PAPER, "paper, CIFAR-10")
