"""Tian, Krishnan, Isola 2020: benchmark of distillation methods.

    python examples/tian2020_peers.py --test
    python examples/tian2020_peers.py --dataset cifar10_jpeg --train-size 5000

The methods of their table, and KDSVD, trained as in `compare.py`. Small-scale stand-in:
residual networks of 20 and 8 layers instead of wide residual networks of 40 and 16; the
student sees few samples, the teacher all. Nothing was tuned.
"""

import compare

# Accuracy on CIFAR-100 in %, WRN-40-2 to WRN-16-2, from the page of RepDistiller, where
# RKD is one row, with distances and angles.
PAPER = {
    "teacher": 75.61,
    "alone": 73.26,
    "KD": 74.92,
    "FitNet": 73.58,
    "AT": 74.08,
    "SP": 73.83,
    "CC": 73.56,
    "VID": 74.11,
    "RKD-DA": 73.35,
    "PKT": 74.54,
    "AB": 72.50,
    "FT": 73.25,
    "FSP": 72.91,
    "NST": 73.68,
    "CRD": 75.48,
    "KDSVD": None,
}

if __name__ == "__main__":
    compare.main("runs/tian2020_peers", PAPER, "paper, CIFAR-100")
