"""Activations in the spectrum of the graph of their neurons."""

import itertools

import numpy as np


def record(activations: dict[str, np.ndarray], pairs: bool, keep: float) -> dict:
    """Return the bases and the largest coefficients of each sample, a fraction `keep`.

    Activations are `(N, n)` by layer, in order. With `pairs`, each two consecutive
    layers have a joint graph, else each layer has its own.
    """
    names = list(activations)
    groups = list(itertools.pairwise(names)) if pairs else [(name,) for name in names]
    arrays = {}
    for i, group in enumerate(groups):
        values = np.concatenate([activations[name] for name in group], axis=-1)
        basis = fourier_basis(values)
        spectrum = values @ basis
        count = max(1, round(keep * values.shape[-1]))
        largest = np.argpartition(-np.abs(spectrum), count - 1, axis=-1)[:, :count]
        kept = np.take_along_axis(spectrum, largest, axis=-1)
        arrays[f"{i}/basis"] = basis
        arrays[f"{i}/places"] = largest.astype("uint16")
        arrays[f"{i}/values"] = kept.astype("float16")
        arrays[f"{i}/sizes"] = np.array([activations[n].shape[-1] for n in group])
    return arrays


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


def draw(arrays: dict, layers: list[str], count: int, rng) -> dict:
    """Return the activations `(count, n)` by layer of random samples.

    Samples are drawn without replacement, unless more are needed than were recorded. A
    layer in two pairs gets the mean of both reconstructions.
    """
    pairs = len(arrays["0/sizes"]) > 1
    samples = len(arrays["0/places"])
    chosen = rng.permutation(samples)[:count]
    if count > samples:
        chosen = rng.integers(0, samples, count)
    drawn = {name: [] for name in layers}
    for i in range(len(layers) - pairs):
        basis = arrays[f"{i}/basis"]
        spectrum = np.zeros((count, len(basis)), "float32")
        kept = arrays[f"{i}/values"][chosen].astype("float32")
        np.put_along_axis(spectrum, arrays[f"{i}/places"][chosen], kept, axis=-1)
        ends = np.cumsum(arrays[f"{i}/sizes"])[:-1]
        parts = np.split(spectrum @ basis.T, ends, axis=-1)
        for name, part in zip(layers[i:], parts, strict=False):
            drawn[name].append(part)
    return {name: np.mean(parts, axis=0) for name, parts in drawn.items()}
