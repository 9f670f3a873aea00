"""Tang et al. 2020, Furlanello et al. 2018: partial soft targets.

    python examples/tang2020_targets.py --test
    python examples/tang2020_targets.py --test --cached --dataset cifar10_jpeg \\
        --teacher-size 5000 --train-size 2500 --teacher-epochs 12 --epochs 30 --width 8

The student learns from labels and a target that keeps one part of the teacher's
prediction: its top classes, its confidence in the true class, or the similarity of the
classes; and from labels weighted by the confidence; trained as in `compare.py`.
Small-scale stand-in: residual networks of 20 and 8 layers instead of 56 and 20; the
student sees few samples, the teacher all. Nothing was tuned.
"""

import compare

# Accuracy on CIFAR-100 in %, ResNet-56 to ResNet-20, where the paper has the method.
PAPER = {
    "teacher": 75.68,
    "alone": 72.51,
    "label smoothing": 73.87,
    "KD": 75.94,
    "KD-pt": 75.08,
    "KD-sim": 74.30,
    "KD-rel": 74.14,
    "KD-pt+sim": 75.24,
    "KD-topk": 76.17,
    "Tf-KD": None,
    "DKPP": None,
    "CWTM": None,
}

if __name__ == "__main__":
    compare.main("runs/tang2020_targets", PAPER, "paper, CIFAR-100")
