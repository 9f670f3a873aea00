"""Activations in the spectrum of the graph of their neurons."""

from __future__ import annotations

import itertools

import numpy as np


def of(activations: dict[str, np.ndarray], pairs: bool, keep: float) -> dict:
    """Give bases and each sample's largest coefficients.

    Args:
        activations: `(N, n)` by layer, in order.
        pairs: take the joint graph of each two neighbours, not each layer's own.
        keep: share of the coefficients that is kept.
    """
    names = list(activations)
    groups = list(itertools.pairwise(names)) if pairs else [(name,) for name in names]
    arrays = {}
    for place, group in enumerate(groups):
        values = np.concatenate([activations[name] for name in group], axis=-1)
        basis = fourier_basis(values)
        spectrum = values @ basis
        count = max(1, round(keep * values.shape[-1]))
        largest = np.argpartition(-np.abs(spectrum), count - 1, axis=-1)[:, :count]
        kept = np.take_along_axis(spectrum, largest, axis=-1)
        arrays[f"{place}/basis"] = basis
        arrays[f"{place}/places"] = largest.astype("uint16")
        arrays[f"{place}/values"] = kept.astype("float16")
        arrays[f"{place}/sizes"] = np.array([activations[n].shape[-1] for n in group])
    return arrays


def fourier_basis(values: np.ndarray) -> np.ndarray:
    """Give the eigenvectors of the normalised Laplacian of the neurons' graph, `(n, n)`.

    Two neurons are joined as strongly as they correlate, by the absolute value; one
    that never moves is joined to none.
    """
    centred = values - values.mean(0)
    deviation = centred.std(0)
    moving = deviation > 1e-6 * max(deviation.max(), 1e-30)
    scaled = np.where(moving, centred / np.where(moving, deviation, 1.0), 0.0)
    weights = np.abs(scaled.T @ scaled) / len(values)
    np.fill_diagonal(weights, 0.0)
    degree = weights.sum(0)
    inverse = np.where(
        degree > 0, 1.0 / np.sqrt(np.where(degree > 0, degree, 1.0)), 0.0
    )
    laplacian = np.eye(len(degree)) - inverse[:, None] * weights * inverse
    return np.linalg.eigh(laplacian)[1].astype("float32")


def targets(arrays: dict, layers: list[str], count: int, rng) -> dict:
    """Give activations `(count, n)` by layer, of samples drawn without repeats.

    A layer of two pairs has the mean of what both say.
    """
    pairs = len(arrays["0/sizes"]) > 1
    samples = len(arrays["0/places"])
    chosen = rng.permutation(samples)[:count]
    if count > samples:
        chosen = rng.integers(0, samples, count)
    found = {name: [] for name in layers}
    for place in range(len(layers) - pairs):
        basis = arrays[f"{place}/basis"]
        spectrum = np.zeros((count, len(basis)), "float32")
        kept = arrays[f"{place}/values"][chosen].astype("float32")
        np.put_along_axis(spectrum, arrays[f"{place}/places"][chosen], kept, axis=-1)
        ends = np.cumsum(arrays[f"{place}/sizes"])[:-1]
        parts = np.split(spectrum @ basis.T, ends, axis=-1)
        for name, part in zip(layers[place:], parts, strict=False):
            found[name].append(part)
    return {name: np.mean(parts, axis=0) for name, parts in found.items()}
