"""Heo et al. 2019: activation boundaries against its rivals, on data at hand.

    python examples/heo2019_boundaries.py --test
    python examples/heo2019_boundaries.py --dataset cifar10_jpeg --train-size 5000

Little data, where the paper's gain is largest, and the losses that it names, with
Jacobian matching (Srinivas, Fleuret 2018) among them; trained as `compare.py` beside this
file does. The stand-in protocol: residual nets of 20 and 8 layers in place of WRN-22-4
and WRN-16-2; the student sees few samples, the teacher all. Nothing was tuned.
"""

import compare

# Accuracy in %, 100 less the errors, with a tenth of CIFAR-10.
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
