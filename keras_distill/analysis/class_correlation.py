"""Class relations in a teacher's predictions and in the weights of its last layer."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from keras_distill._backend.number_checks import check_above, check_integers
from keras_distill._backend.optional import require
from keras_distill.analysis.figures import new_figure
from keras_distill.analysis.last_layer import class_vectors
from keras_distill.analysis.predictions import logits_of, softmax


@dataclasses.dataclass(frozen=True)
class ClassCorrelation:
    """Similarity of each pair of classes, with the classes in groups.

    Args:
        matrix: `(K, K)`, rows and columns by class index.
        groups: lists of the class indices that belong together.
        title: what was compared.

    Example:
        >>> kd.analysis.class_correlation(teacher, digits.test)[0].order
    """

    matrix: np.ndarray
    groups: list[list[int]]
    title: str

    @property
    def order(self) -> list[int]:
        """Return the class indices, with those of each group side by side."""
        return [k for group in self.groups for k in group]

    @property
    def blocks(self) -> float:
        """Return how block-diagonal the matrix is.

        The mean over pairs of classes within a group minus the mean over pairs from
        different groups: near 0 if the groups are arbitrary, 1 if classes of a group are
        identical and others unrelated. NaN unless there are two groups, and one of them
        has two classes.
        """
        group_of = np.empty(len(self.matrix), int)
        for number, group in enumerate(self.groups):
            group_of[group] = number
        same = group_of[:, None] == group_of[None, :]
        pairs = ~np.eye(len(group_of), dtype=bool)
        if not (same & pairs).any() or same.all():
            return float("nan")
        return float(self.matrix[same & pairs].mean() - self.matrix[~same].mean())


def class_correlation(
    teacher: keras.Model,
    samples,
    temperatures: Sequence[float] = (1.0, 4.0, 20.0),
    *,
    groups: Sequence[Sequence[int]] | None = None,
    clusters: int | None = None,
    batch_size: int = 1000,
) -> list[ClassCorrelation]:
    r"""Correlate the classes in a teacher's softened predictions over a data set.

    .. math::

        r_{ij} = \mathrm{corr}(p_i, p_j), \quad p = \mathrm{softmax}(z_t / T)

    with Pearson's correlation over the samples. The probabilities of similar classes
    rise and fall together; at a low temperature the predicted class hides this. The
    blocks that appear at a high temperature are what a student learns about the
    classes. As T goes to infinity, p goes to 1 / K, and the correlation to that of the
    centered logits.

    Args:
        teacher: returns logits `(B, K)`.
        samples: `kd.data.Samples`, or any object with `images`.
        temperatures: each T > 0. Default 1, 4 and 20.
        groups: classes that belong together, as in super-classes; each class in exactly
            one. Default: clusters of the matrix at the highest temperature.
        clusters: number of clusters to find. Default: about the square root of K.
        batch_size: Default 1000.

    Returns:
        A `ClassCorrelation` for each temperature.

    Raises:
        ValueError: a temperature is not above 0, `groups` misses classes, or the teacher
            predicts the same for all samples, so that the correlation is undefined.

    Example:
        >>> cold, hot = kd.analysis.class_correlation(teacher, digits.test, (1, 20))
        >>> cold.blocks, hot.blocks
        >>> kd.analysis.plot_class_correlation([cold, hot])

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation, figure 1.
    """
    temperatures = list(np.atleast_1d(temperatures))
    if not temperatures:
        raise ValueError("temperatures must be one or more numbers; got none.")
    check_above(0, **{f"temperatures[{i}]": t for i, t in enumerate(temperatures)})
    logits = logits_of(teacher, samples, batch_size)
    matrices = [_correlation(softmax(logits, T)) for T in temperatures]
    groups = _groups(matrices[np.argmax(temperatures)], groups, clusters)
    return [
        ClassCorrelation(matrix, groups, f"predictions at T = {T:g}")
        for matrix, T in zip(matrices, temperatures, strict=True)
    ]


def weight_similarity(
    model: keras.Model,
    *,
    groups: Sequence[Sequence[int]] | None = None,
    clusters: int | None = None,
) -> ClassCorrelation:
    """Compute the cosine similarity of each two classes' weights in the last layer.

    Args:
        model: its last layer is a `keras.layers.Dense`.
        groups, clusters: as in `class_correlation`.

    Returns:
        A `ClassCorrelation`.

    Raises:
        ValueError: the last layer is of another type, or `groups` misses classes.

    Example:
        >>> kd.analysis.weight_similarity(teacher, clusters=3).groups

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation, figure 1.
    """
    vectors = class_vectors(model)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1.0)
    matrix = unit @ unit.T
    groups = _groups(matrix, groups, clusters)
    return ClassCorrelation(matrix, groups, "weights of the last layer")


def plot_class_correlation(correlations: Sequence[ClassCorrelation], names=None):
    """Return a figure of class correlations side by side, with classes ordered by group.

    Args:
        correlations: results of `class_correlation` and `weight_similarity`.
        names: names of the classes. Default: their indices.

    Example:
        >>> found = kd.analysis.class_correlation(teacher, digits.test, (1, 20))
        >>> kd.analysis.plot_class_correlation(found).savefig("classes.png")
    """
    count = len(correlations)
    figure, axes = new_figure(4.2 * count, 4, 1, count)
    for axis, one in zip(axes[0], correlations, strict=True):
        order = one.order
        matrix = one.matrix[np.ix_(order, order)]
        image = axis.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
        axis.set_title(f"{one.title}\nblocks {one.blocks:.2f}", fontsize="small")
        shown = order if names is None else [names[k] for k in order]
        if len(order) <= 20:
            axis.set_xticks(range(len(order)), shown, rotation=90, fontsize="x-small")
            axis.set_yticks(range(len(order)), shown, fontsize="x-small")
    figure.colorbar(image, ax=list(axes[0]), shrink=0.8)
    return figure


def _groups(matrix: np.ndarray, groups, clusters: int | None) -> list[list[int]]:
    """Return given groups, which must have each class once, or clusters of the classes."""
    if groups is None:
        return _clusters(matrix, clusters)
    groups = [[int(k) for k in group] for group in groups]
    if sorted(k for group in groups for k in group) != list(range(len(matrix))):
        raise ValueError(
            f"Expected `groups` to have each of the {len(matrix)} classes once; got "
            f"{groups}."
        )
    return groups


def _correlation(p: np.ndarray) -> np.ndarray:
    """Correlate columns, `(N, K)` to `(K, K)`."""
    centered = p - p.mean(0)
    norms = np.linalg.norm(centered, axis=0)
    # Includes columns that differ by rounding alone.
    constant = np.flatnonzero(norms <= 1e-6 * np.linalg.norm(p, axis=0))
    if len(constant):
        raise ValueError(
            f"The teacher's predictions for the classes {constant.tolist()} are the same "
            f"on all {len(p)} samples, so their correlation is undefined. Use a trained "
            "teacher, more samples, or a temperature closer to 4."
        )
    return (centered / norms).T @ (centered / norms)


def _clusters(matrix: np.ndarray, clusters: int | None) -> list[list[int]]:
    """Cluster classes by average linkage of 1 - correlation, in the order of the tree."""
    user = "kd.analysis.class_correlation"
    hierarchy = require("scipy.cluster.hierarchy", user)
    distance = require("scipy.spatial.distance", user)
    distances = np.clip(1.0 - (matrix + matrix.T) / 2.0, 0.0, None)
    np.fill_diagonal(distances, 0.0)
    tree = hierarchy.linkage(
        distance.squareform(distances), "average", optimal_ordering=True
    )
    if clusters is not None:
        check_integers(1, clusters=clusters)
    count = clusters or max(2, round(len(matrix) ** 0.5))
    members = hierarchy.fcluster(tree, count, "maxclust")
    groups: dict[int, list[int]] = {}
    for k in hierarchy.leaves_list(tree):
        groups.setdefault(int(members[k]), []).append(int(k))
    return list(groups.values())
