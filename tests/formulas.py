"""Formulas in NumPy and float64 that several tests compare with."""

import numpy as np


def log_softmax(z, temperature=1.0):
    z = np.asarray(z, "float64") / temperature
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def softmax(z, temperature=1.0):
    return np.exp(log_softmax(z, temperature))


def top_k(z, k, temperature):
    """Keep k probabilities and spread the rest over the others."""
    rows = []
    for p in softmax(z, temperature):
        kept = sorted(range(len(p)), key=lambda j: -p[j])[:k]
        rest = (1 - sum(p[j] for j in kept)) / max(len(p) - k, 1)
        rows.append([p[j] if j in kept else rest for j in range(len(p))])
    return np.array(rows)


def power_transform(z, exponent, temperature):
    powers = softmax(z, temperature) ** exponent
    return powers / powers.sum(-1, keepdims=True)


def true_class(z, labels, temperature):
    rows = []
    for p, y in zip(softmax(z, temperature), labels, strict=True):
        rest = (1 - p[y]) / (len(p) - 1)
        rows.append([p[y] if j == y else rest for j in range(len(p))])
    return np.array(rows)


def class_similarity(vectors, labels, temperature, power):
    rows = []
    for y in labels:
        cosines = [
            v @ vectors[y] / np.linalg.norm(v) / np.linalg.norm(vectors[y])
            for v in vectors
        ]
        z = np.array([np.sign(c) * abs(c) ** power for c in cosines])
        rows.append(softmax(z, temperature))
    return np.array(rows)


def super_classes(groups, masses, labels):
    rows = []
    for y in labels:
        row = [masses[1] if group == groups[y] else masses[2] for group in groups]
        row[y] = masses[0]
        rows.append(np.array(row) / sum(row))
    return np.array(rows)


def virtual_teacher(mass, labels, classes, temperature):
    rows = []
    for y in labels:
        p = np.full(classes, (1 - mass) / (classes - 1))
        p[y] = mass
        softened = p ** (1 / temperature)
        rows.append(softened / softened.sum())
    return np.array(rows)
