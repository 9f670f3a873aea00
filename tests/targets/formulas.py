"""The targets' formulas in NumPy, a sample at a time."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def top_k(z, k, temperature):
    """Keep k probabilities, spread what is left over the others."""
    found = []
    for p in softmax(np.asarray(z, "float64") / temperature):
        kept = sorted(range(len(p)), key=lambda j: -p[j])[:k]
        rest = (1 - sum(p[j] for j in kept)) / max(len(p) - k, 1)
        found.append([p[j] if j in kept else rest for j in range(len(p))])
    return np.array(found)


def true_class(z, labels, temperature):
    found = []
    for p, y in zip(
        softmax(np.asarray(z, "float64") / temperature), labels, strict=True
    ):
        rest = (1 - p[y]) / (len(p) - 1)
        found.append([p[y] if j == y else rest for j in range(len(p))])
    return np.array(found)


def class_similarity(vectors, labels, temperature, power):
    found = []
    for y in labels:
        cosines = [
            v @ vectors[y] / np.linalg.norm(v) / np.linalg.norm(vectors[y])
            for v in vectors
        ]
        z = np.array([np.sign(c) * abs(c) ** power / temperature for c in cosines])
        found.append(softmax(z))
    return np.array(found)


def super_classes(groups, masses, labels):
    found = []
    for y in labels:
        row = [masses[1] if group == groups[y] else masses[2] for group in groups]
        row[y] = masses[0]
        found.append(np.array(row) / sum(row))
    return np.array(found)


def virtual_teacher(mass, labels, classes, temperature):
    found = []
    for y in labels:
        p = np.full(classes, (1 - mass) / (classes - 1))
        p[y] = mass
        softened = p ** (1 / temperature)
        found.append(softened / softened.sum())
    return np.array(found)
