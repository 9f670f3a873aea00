"""Groups of classes that a generalist confuses."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_distill._backend.number_checks import check_integers
from keras_distill._backend.optional import require


def cluster_classes(
    predictions: np.ndarray, clusters: int, *, seed: int = 0
) -> list[list[int]]:
    """Group the classes that a generalist predicts together.

    Mini-batch k-means on the columns of the covariance matrix of the predictions: the
    confusions of a class decide, and no labels are used. The variance of each class,
    which dominates if the generalist is often right, is left out, and the columns are
    scaled to unit length.

    Args:
        predictions: probabilities `(N, K)`.
        clusters: number of clusters. Those with fewer than two classes are dropped.
        seed: seed of the clustering. Default 0.

    Returns:
        Lists of classes, each of two or more.

    Raises:
        ValueError: `clusters` is below two, or not below the number of classes.

    Example:
        >>> predictions = ops.softmax(generalist.predict(images))
        >>> groups = kd.cluster_classes(ops.convert_to_numpy(predictions), 3)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network
        (section 5.3).
    """
    cluster = require("sklearn.cluster", "kd.cluster_classes")
    classes = predictions.shape[-1]
    check_integers(2, clusters=clusters)
    check_integers(0, seed=seed)
    if not 2 <= clusters < classes:
        raise ValueError(
            f"clusters must be 2 to {classes - 1} for {classes} classes; got {clusters}."
        )
    columns = np.cov(np.asarray(predictions, "float64"), rowvar=False)
    np.fill_diagonal(columns, 0.0)
    columns /= np.maximum(np.linalg.norm(columns, axis=0), 1e-12)
    means = cluster.MiniBatchKMeans(clusters, random_state=seed, n_init=10).fit(
        columns.T
    )
    groups = [np.flatnonzero(means.labels_ == n).tolist() for n in range(clusters)]
    return [group for group in groups if len(group) > 1]


def check_groups(generalist: keras.Model, groups: Sequence[Sequence[int]]) -> None:
    """Check that each group is a proper subset of a generalist's classes."""
    classes = generalist.output_shape[-1]
    for group in groups:
        valid = set(group) <= set(range(classes)) and len(set(group)) == len(group)
        if not valid or not 0 < len(group) < classes:
            raise ValueError(
                f"A group must be some of the classes 0..{classes - 1}, each once, but not "
                f"all of them; got {list(group)}."
            )
    if not groups:
        raise ValueError("There are no groups of classes; pass one or more.")
