"""Activations in the spectrum of the graph of their neurons."""

import itertools

import numpy as np

from keras_distill.schemes.data_free.goals import Goal
from keras_distill.taps import LOGITS

# How many of a product are held at a time.
_NUMBERS = 2**22


def record(activations: dict[str, np.ndarray], pairs: bool, keep: float) -> dict:
    """Return the bases and the largest coefficients of each sample.

    Activations are `(N, n)` by layer, in order. With `pairs`, each two consecutive
    layers have a joint graph, else each layer has its own. Of each graph a sample keeps a
    fraction `keep` of the coefficients, of one with the logits at least as many as keep
    the class that is predicted.
    """
    names = list(activations)
    groups = list(itertools.pairwise(names)) if pairs else [(name,) for name in names]
    arrays = {}
    for i, group in enumerate(groups):
        sizes = [activations[name].shape[-1] for name in group]
        values = np.concatenate([activations[name] for name in group], axis=-1)
        basis = fourier_basis(values)
        spectrum = values @ basis
        order = np.argsort(-np.abs(spectrum), axis=-1, kind="stable")
        largest = np.take_along_axis(spectrum, order, axis=-1).astype("float16")
        least = max(1, round(keep * values.shape[-1]))
        counts = np.full(len(values), least)
        if LOGITS in group:
            begin = sum(sizes[: group.index(LOGITS)])
            rows = basis[begin : begin + activations[LOGITS].shape[-1]]
            first = activations[LOGITS].argmax(-1)
            counts = _counts(order, largest.astype("float32"), rows, first, least)
        kept = counts.max()
        arrays[f"{i}/basis"] = basis
        arrays[f"{i}/places"] = order[:, :kept].astype("uint16")
        arrays[f"{i}/values"] = largest[:, :kept]
        arrays[f"{i}/counts"] = counts.astype("uint16")
        arrays[f"{i}/sizes"] = np.array(sizes)
        lows = [activations[name].min() for name in group]
        arrays[f"{i}/lows"] = np.array(lows, "float32")
    return arrays


def _counts(order, largest, rows, first, least: int) -> np.ndarray:
    """Return how many coefficients keep each sample's largest logit, `least` or more.

    Args:
        order: places of the coefficients, `(N, n)`, the largest first.
        largest: the coefficients in this order, `(N, n)`.
        rows: of the basis, those of the logits, `(K, n)`.
        first: the classes of the largest logits, `(N,)`.
        least: number of coefficients.
    """
    counts, size = [], max(1, _NUMBERS // rows.size)
    for begin in range(0, len(order), size):
        part = slice(begin, begin + size)
        parts = rows.T[order[part]] * largest[part][..., None]
        found = np.cumsum(parts, axis=1)[:, least - 1 :].argmax(-1)
        keeps = found == first[part][:, None]
        # With all of them it is kept, but for what rounding changes.
        keeps[:, -1] = True
        counts.append(least + keeps.argmax(-1))
    return np.concatenate(counts)


def fourier_basis(values: np.ndarray) -> np.ndarray:
    """Return the eigenvectors of the neuron graph's normalized Laplacian, `(n, n)`.

    The weight of an edge is the absolute correlation of its two neurons; a constant
    neuron has no edges.
    """
    centered = values - values.mean(0)
    std = centered.std(0)
    varies = std > 1e-6 * max(std.max(), 1e-30)
    scaled = np.divide(centered, std, out=np.zeros_like(centered), where=varies)
    weights = np.abs(scaled.T @ scaled) / len(values)
    np.fill_diagonal(weights, 0.0)
    degree = weights.sum(0)
    root = np.sqrt(degree)
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
    laplacian = np.eye(len(degree)) - inverse[:, None] * weights * inverse
    return np.linalg.eigh(laplacian)[1].astype("float32")


def activations_of(goals: list[Goal], arrays: dict) -> dict[str, np.ndarray]:
    """Return the activations `(B, n)` by layer that spectra stand for.

    Coefficients that were not kept are zero. A layer in two pairs gets the mean of both,
    and one whose recorded activations are never negative, as behind a ReLU, has no
    negative ones.
    """
    drawn, lows = {}, {}
    for i, goal in enumerate(goals):
        ends = np.cumsum(arrays[f"{i}/sizes"])[:-1]
        parts = np.split(goal.values @ goal.basis.T, ends, axis=-1)
        # Files of earlier versions lack the lowest activations.
        low = arrays.get(f"{i}/lows", np.full(len(parts), -1.0))
        for name, part, lowest in zip(goal.layers, parts, low, strict=True):
            drawn.setdefault(name, []).append(part)
            lows[name] = lowest
    means = {name: np.mean(parts, axis=0) for name, parts in drawn.items()}
    return {
        name: np.maximum(mean, 0.0) if lows[name] >= 0.0 else mean
        for name, mean in means.items()
    }


def draw(arrays: dict, layers: list[str], count: int, rng) -> list[Goal]:
    """Return the spectra of random samples, of which the kept coefficients count.

    Samples are drawn without replacement, unless more are needed than were recorded.
    """
    pairs = len(arrays["0/sizes"]) > 1
    samples = len(arrays["0/places"])
    chosen = rng.permutation(samples)[:count]
    if count > samples:
        chosen = rng.integers(0, samples, count)
    goals = []
    for i in range(len(layers) - pairs):
        basis, places = arrays[f"{i}/basis"], arrays[f"{i}/places"][chosen]
        width = places.shape[-1]
        # Files of earlier versions lack the counts, and keep all.
        counts = arrays.get(f"{i}/counts", np.full(samples, width))[chosen]
        is_kept = np.arange(width) < counts[:, None]
        kept = arrays[f"{i}/values"][chosen].astype("float32")
        spectrum, weights = (np.zeros((count, len(basis)), "float32") for _ in "ab")
        np.put_along_axis(spectrum, places, np.where(is_kept, kept, 0.0), axis=-1)
        shares = is_kept / np.maximum(counts, 1)[:, None]
        np.put_along_axis(weights, places, shares.astype("float32"), axis=-1)
        goals.append(Goal(tuple(layers[i : i + 1 + pairs]), basis, spectrum, weights))
    return goals
