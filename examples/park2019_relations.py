"""Park et al. 2019: relational knowledge distillation.

    python examples/park2019_relations.py --test
    python examples/park2019_relations.py --dataset cifar10_jpeg --train-size 5000

Distances and angles between samples, alone and with soft targets, and other losses on
relations: rankings (Chen et al. 2018) and voted triplets (You et al. 2017), both with one
teacher; trained as in `compare.py`. Small-scale stand-in: residual networks of 20 and 8
layers instead of a ResNet-50 and a VGG-11; the student sees few samples, the teacher all.
Nothing was tuned.
"""

import compare

# Accuracy on CIFAR-100 in %; KD is the paper's HKD, soft targets and labels.
PAPER = {
    "teacher": 77.76,
    "alone": 71.26,
    "RKD-D": 72.27,
    "RKD-DA": 72.97,
    "RKD-A": None,
    "KD": 74.26,
    "KD+RKD-DA": 74.66,
    "FitNet": 70.81,
    "AT": 72.68,
    "DarkRank": None,
    "DarkRank hard": None,
    "voted triplets": None,
}

if __name__ == "__main__":
    compare.main("runs/park2019_relations", PAPER, "paper, CIFAR-100")
