"""Knowledge points: the cells of an image that a network uses, also over training."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from keras_distill._backend.number_checks import check_in
from keras_distill.analysis.attention import plot_images
from keras_distill.analysis.figures import new_figure


@dataclasses.dataclass(frozen=True)
class KnowledgePoints:
    """Knowledge points of images.

    Args:
        points: `(N, g, g)`, True on cells with a point.
        on_foreground: number of points on the foreground, `(N,)`.
        on_background: number of points on the background, `(N,)`.

    Example:
        >>> kd.analysis.knowledge_points(entropies, masks).on_foreground.mean()
    """

    points: np.ndarray
    on_foreground: np.ndarray
    on_background: np.ndarray

    @property
    def foreground_fraction(self) -> float:
        """Return lambda: the mean fraction of points on the foreground."""
        total = self.on_foreground + self.on_background
        some = total > 0
        fractions = self.on_foreground[some] / total[some]
        return float(fractions.mean()) if some.any() else 0.0


@dataclasses.dataclass(frozen=True)
class Learning:
    """Knowledge points over the checkpoints of a training.

    Args:
        stability: rho, the fraction of the foreground points at any checkpoint that
            remain at the last one, averaged over the images.
        mean_distance: D_mean, the path length of the weights until an image has the most
            foreground points, relative to the norm of the initial weights, averaged over
            the images that ever have one; NaN if none has.
        variance: D_std of the paper, the variance of that distance over these images.
        on_foreground: mean number of foreground points at each checkpoint, `(M,)`.

    Example:
        >>> kd.analysis.learning_of_points(checkpoints, masks, weights).mean_distance
    """

    stability: float
    mean_distance: float
    variance: float
    on_foreground: np.ndarray


def knowledge_points(
    entropies: np.ndarray, masks: np.ndarray, *, margin: float = 0.2
) -> KnowledgePoints:
    r"""Count the cells whose entropy is clearly below the mean of the background.

    .. math::

        \mathrm{points} = \{ i : \mathrm{mean}_{j \in \mathrm{background}} H_j - H_i > b \}

    with the entropies H of the cells. A well-trained network has many on the foreground
    and few on the background.

    Args:
        entropies: H of each cell, `(N, g, g)`, from `pixel_entropies`.
        masks: True on the foreground, `(N, H, W)` or `(N, g, g)`; a cell with any
            foreground pixel is foreground.
        margin: b, in nats. Default 0.2.

    Returns:
        `KnowledgePoints`.

    Raises:
        ValueError: the masks do not match the cells, or an image has no background.

    Example:
        >>> found = kd.analysis.knowledge_points(entropies, masks, margin=0.2)
        >>> found.foreground_fraction, found.on_foreground.mean()

    Source:
        Cheng et al. 2020, Explaining knowledge distillation by quantifying the
        knowledge.
    """
    check_in(0, margin=margin)
    foreground = _foreground_cells(masks, entropies.shape)
    background = ~foreground
    missing = int((~background.any((1, 2))).sum())
    if missing:
        raise ValueError(
            "Each image needs background cells, whose mean entropy is the reference; "
            f"{missing} of {len(foreground)} images have none."
        )
    mean = (entropies * background).sum((1, 2)) / background.sum((1, 2))
    points = mean[:, None, None] - entropies > margin
    return KnowledgePoints(
        points, (points & foreground).sum((1, 2)), (points & background).sum((1, 2))
    )


def learning_of_points(
    checkpoints: Sequence[KnowledgePoints],
    masks: np.ndarray,
    weights: Sequence[Sequence[np.ndarray]],
) -> Learning:
    r"""Measure how stably and how fast a network learns its foreground points.

    .. math::

        \rho &= \frac{|S_M|}{|S_1 \cup \dots \cup S_M|}

        D_{\mathrm{mean}} &= \mathrm{E} \sum_{k=1}^{m}
            \frac{\lVert w_k - w_{k-1} \rVert}{\lVert w_0 \rVert},
            \quad m = \arg\max_k |S_k|

    with the foreground points S_k and the weights w_k at checkpoint k. Steady learning
    keeps its points (rho near 1), finds them early (low D_mean), and at the same time
    on all images (low variance).

    Args:
        checkpoints: results of `knowledge_points` on the same images at M checkpoints.
        masks: as in `knowledge_points`.
        weights: the trainable weights before the training and at each checkpoint, M + 1
            lists of arrays, in the order of `model.trainable_variables`.

    Returns:
        `Learning`.

    Raises:
        ValueError: there are no checkpoints, or `weights` does not have M + 1 lists.

    Example:
        >>> kd.analysis.learning_of_points(checkpoints, masks, weights).stability

    Source:
        Cheng et al. 2020, Explaining knowledge distillation by quantifying the
        knowledge.
    """
    if not checkpoints or len(weights) != len(checkpoints) + 1:
        raise ValueError(
            "Expected the weights before the training and at each checkpoint; got "
            f"{len(weights)} lists of weights for {len(checkpoints)} checkpoints."
        )
    foreground = _foreground_cells(masks, checkpoints[0].points.shape)
    sets = np.stack([one.points & foreground for one in checkpoints])
    ever, last = sets.any(0).sum((1, 2)), sets[-1].sum((1, 2))
    some = ever > 0
    steps = [_distance(a, b) for a, b in itertools.pairwise(weights)]
    path = np.cumsum(steps) / _distance(weights[0])
    counts = np.stack([one.on_foreground for one in checkpoints])
    distances = path[counts.argmax(0)][some]
    return Learning(
        stability=float((last[some] / ever[some]).mean()) if some.any() else 0.0,
        mean_distance=float(distances.mean()) if len(distances) else float("nan"),
        variance=float(distances.var()) if len(distances) else float("nan"),
        on_foreground=counts.mean(1),
    )


def plot_learning(learning: Mapping[str, Learning]):
    """Return a figure of the foreground points of each student over its checkpoints.

    Args:
        learning: results of `learning_of_points`, by the name of the student.

    Example:
        >>> found = kd.analysis.learning_of_points(checkpoints, masks, weights)
        >>> kd.analysis.plot_learning({"distilled": found})
    """
    figure, axes = new_figure(4.6, 3.4)
    for name, one in learning.items():
        label = f"{name}: rho {one.stability:.2f}, D {one.mean_distance:.2f}"
        steps = range(1, len(one.on_foreground) + 1)
        axes.plot(steps, one.on_foreground, "o-", label=label)
    axes.set(xlabel="checkpoint", ylabel="points on the foreground")
    axes.legend(fontsize="small")
    return figure


def plot_knowledge_points(images, entropies, knowledge: KnowledgePoints):
    """Return a figure of images, the entropies of their cells, and their knowledge points.

    Args:
        images: the images to show, `(N, H, W, C)`.
        entropies: `(N, g, g)`.
        knowledge: result of `knowledge_points`.

    Example:
        >>> found = kd.analysis.knowledge_points(entropies, masks)
        >>> kd.analysis.plot_knowledge_points(images[:8], entropies[:8], found)
    """
    points = knowledge.points[: len(images)].astype(float)
    return plot_images({"image": images, "entropy": entropies, "points": points})


def _foreground_cells(masks, shape) -> np.ndarray:
    """Return True on the cells of the foreground, `(N, g, g)`."""
    count, rows, columns = shape
    masks = np.asarray(masks, bool)
    fits = masks.ndim == 3 and len(masks) == count
    if not fits or masks.shape[1] % rows or masks.shape[2] % columns:
        raise ValueError(
            f"Expected `masks` (N, H, W) of whole cells of the entropies {tuple(shape)}; "
            f"got shape {masks.shape}."
        )
    parts = (rows, masks.shape[1] // rows, columns, masks.shape[2] // columns)
    return masks.reshape(count, *parts).any((2, 4))


def _distance(a, b=None) -> float:
    """Return the norm of the difference of two lists of weights, or of one list."""
    gaps = a if b is None else [x - y for x, y in zip(a, b, strict=True)]
    return float(np.sqrt(sum(np.square(x, dtype="float64").sum() for x in gaps)))
