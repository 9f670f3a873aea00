"""How classes go together in what a teacher says, and in the weights of its last layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from keras_distill.analysis.last_layer import class_vectors
from keras_distill.analysis.predictions import logits_of, softmax


@dataclasses.dataclass(frozen=True)
class ClassCorrelation:
    """How alike each two classes are, with the classes in an order that shows groups.

    Args:
        matrix: `(K, K)`, in the order of the classes' numbers.
        groups: lists of classes that belong together, one after another the order.
        title: what was compared.

    Example:
        >>> kd.analysis.class_correlation(teacher, digits.test)[0].order
    """

    matrix: np.ndarray
    groups: list[list[int]]
    title: str

    @property
    def order(self) -> list[int]:
        """Give the classes so that those of a group stand side by side."""
        return [k for group in self.groups for k in group]

    @property
    def blocks(self) -> float:
        """Tell how block-like the matrix is.

        The mean over pairs of classes of one group minus that over pairs of different
        groups: near 0 where groups mean nothing, 1 where classes of a group are the
        same and others have nothing in common. Not a number without two groups, one of
        them of two classes.
        """
        place = np.empty(len(self.matrix), int)
        for number, group in enumerate(self.groups):
            place[group] = number
        same = place[:, None] == place[None, :]
        pairs = ~np.eye(len(place), dtype=bool)
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
    """Correlate the classes in a teacher's softened predictions over a data set.

        Pearson's correlation of p_i and p_j over the samples,  p = softmax(z_t / T)

    Classes that the teacher takes for alike rise and fall together; at a low temperature
    that is drowned by the one class that has it all. The blocks that a high one shows
    are what a student is told of the classes. For T to infinity p goes to 1 / K, and the
    correlation to that of the centred logits.

    Args:
        teacher: gives logits `(B, K)`.
        samples: `kd.data.Samples`, or anything with `images`.
        temperatures: each T > 0. Default 1, 4 and 20.
        groups: classes that belong together, each class once, as super-classes are.
            Default: found by clustering the matrix of the highest temperature.
        clusters: how many groups to find. Default: about the root of K.
        batch_size: of the prediction. Default 1000.

    Returns:
        A `ClassCorrelation` for each temperature.

    Raises:
        ValueError: a temperature not above 0, groups that miss classes, or a teacher
            that says the same of all samples, of which no correlation is defined.

    Example:
        >>> cold, hot = kd.analysis.class_correlation(teacher, digits.test, (1, 20))
        >>> cold.blocks, hot.blocks
        >>> kd.analysis.plot_class_correlation([cold, hot])

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation, figure 1.
    """
    temperatures = np.atleast_1d(np.asarray(temperatures, "float64"))
    if temperatures.ndim != 1 or not len(temperatures) or not (temperatures > 0).all():
        raise ValueError(f"temperatures are above 0; got {temperatures.tolist()}.")
    logits = logits_of(teacher, samples, batch_size)
    matrices = [_correlation(softmax(logits, T)) for T in temperatures]
    if groups is None:
        hottest = int(np.argmax(temperatures))
        groups = _clustered(matrices[hottest], clusters)
    groups = checked_groups(groups, logits.shape[-1])
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
    """Give the cosine of each two classes' weights in a model's last layer.

    Args:
        model: its last layer is a `Dense` one.
        groups, clusters: as in `class_correlation`.

    Returns:
        A `ClassCorrelation`.

    Raises:
        ValueError: no such last layer, or groups that miss classes.

    Example:
        >>> kd.analysis.weight_similarity(teacher, groups=cold.groups).blocks

    Source:
        Tang et al. 2020, Understanding and improving knowledge distillation, figure 1.
    """
    vectors = class_vectors(model)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1.0)
    matrix = unit @ unit.T
    groups = _clustered(matrix, clusters) if groups is None else groups
    groups = checked_groups(groups, len(matrix))
    return ClassCorrelation(matrix, groups, "weights of the last layer")


def plot_class_correlation(found: Sequence[ClassCorrelation], names=None):
    """Draw matrices side by side as heat maps, classes in the order of the groups.

    Args:
        found: of `class_correlation` and `weight_similarity`.
        names: of the classes. Default: their numbers.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> kd.analysis.plot_class_correlation([cold, hot]).savefig("classes.png")
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(found), 4), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, one in zip(axes, found, strict=True):
        order = one.order
        image = axis.imshow(
            one.matrix[np.ix_(order, order)], vmin=-1, vmax=1, cmap="RdBu_r"
        )
        axis.set_title(f"{one.title}\nblocks {one.blocks:.2f}", fontsize="small")
        shown = order if names is None else [names[k] for k in order]
        if len(order) <= 20:
            axis.set_xticks(range(len(order)), shown, rotation=90, fontsize="x-small")
            axis.set_yticks(range(len(order)), shown, fontsize="x-small")
    figure.colorbar(image, ax=list(axes), shrink=0.8)
    return figure


def checked_groups(groups, classes: int) -> list[list[int]]:
    """Check that groups have each class once; give them as lists."""
    groups = [[int(k) for k in group] for group in groups]
    if sorted(k for group in groups for k in group) != list(range(classes)):
        raise ValueError(
            f"groups have each of the {classes} classes once; got {groups}."
        )
    return groups


def _correlation(p: np.ndarray) -> np.ndarray:
    """Correlate columns, `(N, K)` to `(K, K)`."""
    centred = p - p.mean(0)
    norms = np.linalg.norm(centred, axis=0)
    # Of columns that differ by rounding alone too.
    same = np.flatnonzero(norms <= 1e-6 * np.linalg.norm(p, axis=0))
    if len(same):
        raise ValueError(
            f"Of the classes {same.tolist()} the teacher says the same for all "
            f"{len(p)} samples, so their correlation is undefined. Take a teacher that "
            "is trained, more samples, or a temperature nearer to 4."
        )
    return (centred / norms).T @ (centred / norms)


def _clustered(matrix: np.ndarray, clusters: int | None) -> list[list[int]]:
    """Cluster classes by average linkage of 1 - correlation, in the order of the tree."""
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    distances = np.clip(1.0 - (matrix + matrix.T) / 2.0, 0.0, None)
    np.fill_diagonal(distances, 0.0)
    tree = hierarchy.linkage(squareform(distances), "average", optimal_ordering=True)
    count = clusters or max(2, round(len(matrix) ** 0.5))
    members = hierarchy.fcluster(tree, count, "maxclust")
    groups: dict[int, list[int]] = {}
    for k in hierarchy.leaves_list(tree):
        groups.setdefault(int(members[k]), []).append(int(k))
    return list(groups.values())
