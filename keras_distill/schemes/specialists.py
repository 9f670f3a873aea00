"""Specialists: nets for classes that a generalist confuses, and one prediction of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import layers

from keras_distill.data import Samples
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term
from keras_distill.losses import SoftTarget
from keras_distill.models import Merged
from keras_distill.schemes.progress import Ledger, Progress
from keras_distill.schemes.stages import at_least_one, fresh


def cluster_classes(
    predictions: np.ndarray, clusters: int, *, seed: int = 0
) -> list[list[int]]:
    """Group the classes that a generalist predicts together.

    K-means, in small batches, on the columns of the covariance of its predictions, so
    that a class's confusions decide and no label does.

    Args:
        predictions: probabilities `(N, K)`.
        clusters: how many groups. One that comes out empty or of one class is left out.
        seed: of the clustering. Default 0.

    Returns:
        Lists of classes, each of two or more.

    Raises:
        ValueError: as many clusters as classes, or fewer than one.

    Example:
        >>> groups = kd.cluster_classes(softmax(generalist.predict(images)), 3)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network
        (section 5.3).
    """
    from sklearn.cluster import MiniBatchKMeans

    classes = predictions.shape[-1]
    if not 1 <= clusters < classes:
        raise ValueError(
            f"clusters is 1 to {classes - 1} for {classes} classes; got {clusters}."
        )
    columns = np.cov(np.asarray(predictions, "float64"), rowvar=False)
    found = MiniBatchKMeans(clusters, random_state=seed, n_init=10).fit(columns)
    groups = [np.flatnonzero(found.labels_ == n).tolist() for n in range(clusters)]
    return [group for group in groups if len(group) > 1]


def fit_specialists(
    generalist: keras.Model,
    groups: Sequence[Sequence[int]],
    samples: Samples,
    *,
    compiled: Mapping[str, object],
    soft_weight: float = 0.5,
    temperature: float = 1.0,
    epochs: int = 1,
    batch_size: int = 128,
    seed: int = 0,
    backup: str | None = None,
    verbose: int | str = "auto",
) -> list[keras.Model]:
    """Train a specialist for each group of classes.

    A specialist starts as the generalist, with a last layer for its classes and one
    dustbin for all others, and sees as many samples of its classes as of others. It
    learns from labels and from the generalist's soft targets, in which the others are
    one class too. Afterwards the dustbin's bias takes back that it was seen too seldom:

        b <- b + log(share among all samples / share among those seen) (as odds)

    Args:
        generalist: functional, its last layer a `Dense` without activation.
        groups: classes of each specialist, as `kd.cluster_classes` gives them.
        samples: of all classes.
        compiled: arguments of `compile`: `optimizer`, `loss`, `metrics`.
        soft_weight: of the generalist's soft targets; labels have the rest. Default 0.5.
        temperature: T of the soft targets. Default 1.
        epochs: of each. Default 1.
        batch_size: Default 128.
        seed: of the samples drawn and of their order. Default 0.
        backup: a folder that keeps what is done. Default: none.
        verbose: 0 for nothing, 1 or `"auto"` for one bar over all epochs, 2 for a line
            an epoch.

    Returns:
        A model for each group, with logits of its classes, in their order, and of the
        dustbin.

    Raises:
        TypeError, ValueError: a generalist without such a last layer, a group that is
            empty, holds all classes or one twice, or a class without samples.

    Example:
        >>> specialists = kd.fit_specialists(generalist, groups, samples, epochs=5,
        ...     compiled={"optimizer": "adam", "loss": loss})
        >>> model = kd.SpecialistEnsemble(generalist, specialists, groups)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network
        (section 5).
    """
    at_least_one(epochs)
    groups = [list(group) for group in groups]
    are_groups(generalist, groups)
    drawn = [_drawn(samples, group, seed + n) for n, group in enumerate(groups)]
    models, trainers = [], []
    for group in groups:
        model = _specialist(generalist, group)
        teacher = Merged(group, temperature)(generalist.output)
        teacher = keras.Model(generalist.inputs, teacher, name="merged_generalist")
        soft = Term(SoftTarget(temperature), weight=soft_weight)
        trainer = Distiller(
            model, teacher, terms=[soft], label_weight=1.0 - soft_weight
        )
        optimizer = fresh(compiled.get("optimizer", "adam"))
        trainer.compile(**{**compiled, "optimizer": optimizer})
        models.append(model)
        trainers.append(trainer)
    ledger = Ledger(backup, {"groups": groups, "epochs": epochs, "seed": seed})
    progress = Progress(len(groups) * epochs, verbose)
    for place, (trainer, own) in enumerate(zip(trainers, drawn, strict=True)):
        progress.begin(f"Specialist {place + 1} of {len(groups)}", epochs)
        keras.utils.set_random_seed(seed + place)

        def train(kept, trainer=trainer, own=own):
            return trainer.fit(
                own.images,
                own.labels,
                batch_size=batch_size,
                epochs=epochs,
                callbacks=[progress, *kept],
                verbose=0,
            )

        ledger.once(place, trainer, train)
        _correct_dustbin(models[place], samples, own, groups[place])
        progress.finish()
    return models


def are_groups(generalist: keras.Model, groups: Sequence[Sequence[int]]) -> None:
    """Check groups of classes."""
    classes = generalist.output_shape[-1]
    for group in groups:
        known = set(group) <= set(range(classes)) and len(set(group)) == len(group)
        if not known or not 0 < len(group) < classes:
            raise ValueError(
                f"A group is some of the classes 0..{classes - 1}, each once, and not "
                f"all; got {list(group)}."
            )
    if not groups:
        raise ValueError("There are no groups of classes; give one or more.")


def _specialist(generalist: keras.Model, group: list[int]) -> keras.Model:
    """Copy the generalist, with a last layer for a group and a dustbin."""
    head = generalist.layers[-1] if getattr(generalist, "inputs", None) else None
    linear = keras.activations.linear
    if not isinstance(head, layers.Dense) or head.activation is not linear:
        raise TypeError(
            "A generalist is a functional keras.Model whose last layer is a Dense without "
            f"activation; got {type(generalist).__name__} ending in {head}."
        )
    copy = keras.models.clone_model(generalist)
    copy.set_weights(generalist.get_weights())
    kernel, *bias = (np.array(w) for w in head.get_weights())
    bias = bias[0] if bias else np.zeros(kernel.shape[-1], kernel.dtype)
    rest = np.setdiff1d(np.arange(kernel.shape[-1]), group)
    # The mean logit of the others, raised to what n of them add up to.
    dustbin = kernel[:, rest].mean(1, keepdims=True)
    lifted = bias[rest].mean(keepdims=True) + np.log(len(rest))
    made = layers.Dense(len(group) + 1, name="specialist_logits")
    outputs = made(copy.layers[-1].input)
    made.set_weights(
        [
            np.concatenate([kernel[:, group], dustbin], 1),
            np.concatenate([bias[group], lifted]),
        ]
    )
    name = "specialist_" + "_".join(map(str, group))
    return keras.Model(copy.inputs, outputs, name=name[:60])


def _drawn(samples: Samples, group: list[int], seed: int) -> Samples:
    """Take all samples of a group and as many others; number the classes anew."""
    own, rest = samples.only(group), samples.without(group)
    missing = sorted(set(group) - set(own.labels.tolist()))
    if missing or not len(rest):
        raise ValueError(
            f"A specialist needs samples of each of its classes and of others; classes "
            f"without any: {missing or 'all others'}."
        )
    rest = rest.few(min(len(own), len(rest)), seed)
    places = np.full(int(samples.labels.max()) + 1, len(group), "int32")
    places[group] = np.arange(len(group))
    labels = places[np.concatenate([own.labels, rest.labels])]
    return Samples(
        np.concatenate([own.images, rest.images]),
        labels,
        np.concatenate([own.ids, rest.ids]),
    )


def _correct_dustbin(model, samples: Samples, seen: Samples, group) -> None:
    dustbin = len(group)
    others = int((seen.labels == dustbin).sum())
    odds = (len(samples) - (len(seen) - others)) / (len(seen) - others)
    head = model.layers[-1]
    bias = np.array(head.bias)
    bias[dustbin] += np.log(odds) - np.log(others / (len(seen) - others))
    head.bias.assign(bias)
