"""Knowledge points: the places that a net looks at, counted and followed in training."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class KnowledgePoints:
    """Which cells of images a net looks at.

    Args:
        points: `(N, g, g)`, True on cells with a point.
        on_object: points on the object, `(N,)`.
        on_ground: points on the ground, `(N,)`.

    Example:
        >>> kd.analysis.knowledge_points(entropies, masks).on_object.mean()
    """

    points: np.ndarray
    on_object: np.ndarray
    on_ground: np.ndarray

    @property
    def share(self) -> float:
        """Give lambda: the mean share of points that lie on the object."""
        total = self.on_object + self.on_ground
        some = total > 0
        return float((self.on_object[some] / total[some]).mean()) if some.any() else 0.0


@dataclasses.dataclass(frozen=True)
class Learning:
    """How a net came to its points over a training.

    Args:
        stability: rho, the share of all points on the object that it ever had that it
            has in the end, averaged over the images.
        mean_distance: D_mean, the way that the weights went until an image's points on
            the object were most, relative to the weights at the start, averaged over
            the images that ever had one; NaN if none had.
        variance: D_std of the paper, the variance of the same over these images.
        on_object: mean number of points on the object at each checkpoint, `(M,)`.

    Example:
        >>> kd.analysis.learning_of_points(found, masks, weights).mean_distance
    """

    stability: float
    mean_distance: float
    variance: float
    on_object: np.ndarray


def knowledge_points(
    entropies: np.ndarray, masks: np.ndarray, *, margin: float = 0.2
) -> KnowledgePoints:
    """Count the cells on which a net looks closer than on the ground at large.

        points = cells with  mean of H over the ground - H_i > margin

    A net that learnt the right thing has many on the object, few on the ground.

    Args:
        entropies: H of each cell, `(N, g, g)`, of `pixel_entropies`.
        masks: True on the object, `(N, H, W)` or `(N, g, g)`; a cell of which any
            pixel is on the object belongs to it.
        margin: b, in nats. Default 0.2.

    Returns:
        `KnowledgePoints`.

    Raises:
        ValueError: masks that do not go with the cells, or an image without ground.

    Example:
        >>> found = kd.analysis.pixel_entropies(student, images, "stack2")
        >>> kd.analysis.knowledge_points(found.entropies, masks).share

    Source:
        Cheng et al. 2020, Explaining knowledge distillation by quantifying the
        knowledge.
    """
    cells = _cells(masks, entropies.shape)
    ground = ~cells
    if not ground.any((1, 2)).all():
        raise ValueError(
            "Each image needs some ground, against which the object's cells are "
            f"measured; {int((~ground.any((1, 2))).sum())} of {len(cells)} have none."
        )
    mean = (entropies * ground).sum((1, 2)) / ground.sum((1, 2))
    points = mean[:, None, None] - entropies > margin
    return KnowledgePoints(
        points, (points & cells).sum((1, 2)), (points & ground).sum((1, 2))
    )


def learning_of_points(
    found: Sequence[KnowledgePoints],
    masks: np.ndarray,
    weights: Sequence[Sequence[np.ndarray]],
) -> Learning:
    """Follow knowledge points over the checkpoints of a training.

        rho    = |S_M| / |S_1 u ... u S_M|                of points on the object
        D_mean = E sum_{k=1}^{m} |w_k - w_{k-1}| / |w_0|,  m = argmax_k N_k on the object

    A net that learns steadily keeps what it found (rho near 1), finds it soon (a low
    D_mean), and on all images at once (a low variance).

    Args:
        found: of `knowledge_points` on the same images at each of M checkpoints.
        masks: as there.
        weights: what was trained of the net, before the training and at each
            checkpoint, M + 1 lists of arrays, as of `model.trainable_variables`.

    Returns:
        `Learning`.

    Raises:
        ValueError: no checkpoints, or not one list of weights more than these.

    Example:
        >>> kd.analysis.learning_of_points(found, masks, weights).stability

    Source:
        Cheng et al. 2020, Explaining knowledge distillation by quantifying the
        knowledge.
    """
    if not found or len(weights) != len(found) + 1:
        raise ValueError(
            "weights are those before the training and at each checkpoint; got "
            f"{len(weights)} for {len(found)} checkpoints."
        )
    cells = _cells(masks, found[0].points.shape)
    sets = np.stack([one.points & cells for one in found])
    ever, last = sets.any(0).sum((1, 2)), sets[-1].sum((1, 2))
    some = ever > 0
    steps = [_distance(a, b) for a, b in itertools.pairwise(weights)]
    way = np.cumsum(steps) / _distance(weights[0])
    counts = np.stack([one.on_object for one in found])
    distances = way[counts.argmax(0)][some]
    return Learning(
        stability=float((last[some] / ever[some]).mean()) if some.any() else 0.0,
        mean_distance=float(distances.mean()) if len(distances) else float("nan"),
        variance=float(distances.var()) if len(distances) else float("nan"),
        on_object=counts.mean(1),
    )


def plot_learning(found: Mapping[str, Learning]):
    """Draw how many points each student has on the object as its training goes on.

    Args:
        found: of `learning_of_points`, by the name of the student.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> kd.analysis.plot_learning({"labels": alone, "distilled": distilled})
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, one in found.items():
        label = f"{name}: rho {one.stability:.2f}, D {one.mean_distance:.2f}"
        axes.plot(range(1, len(one.on_object) + 1), one.on_object, "o-", label=label)
    axes.set(xlabel="checkpoint", ylabel="points on the object")
    axes.legend(fontsize="small")
    return figure


def plot_knowledge_points(images, entropies, found: KnowledgePoints):
    """Draw images, the entropies of their cells, and the points.

    Args:
        images: `(N, H, W, C)`, as many as shall be shown.
        entropies: `(N, g, g)`.
        found: of `knowledge_points`.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> kd.analysis.plot_knowledge_points(images[:8], entropies[:8], found)
    """
    from keras_distill.analysis.attention import plot_images

    points = found.points[: len(images)].astype(float)
    return plot_images(
        {"image": images, "entropy of its cells": entropies, "points": points}
    )


def _cells(masks, shape) -> np.ndarray:
    """Give which cells belong to the object, `(N, g, g)`."""
    count, rows, columns = shape
    masks = np.asarray(masks, bool)
    fits = masks.ndim == 3 and len(masks) == count
    if not fits or masks.shape[1] % rows or masks.shape[2] % columns:
        raise ValueError(
            f"masks are (N, H, W), whole cells of the entropies {tuple(shape)}; got "
            f"{masks.shape}."
        )
    parts = (rows, masks.shape[1] // rows, columns, masks.shape[2] // columns)
    return masks.reshape(count, *parts).any((2, 4))


def _distance(a, b=None) -> float:
    """Give the length of the difference of two lists of weights, or of one."""
    gaps = a if b is None else [x - y for x, y in zip(a, b, strict=True)]
    return float(np.sqrt(sum(np.square(x, dtype="float64").sum() for x in gaps)))
