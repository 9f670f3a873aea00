"""Weights that are measured: with which a term pulls as hard as the labels."""

import logging
from collections.abc import Mapping

import keras
import numpy as np

from keras_distill.data.first_batches import first_batches
from keras_distill.distillers.part_gradients import LABELS, PartGradients, measure
from keras_distill.losses.schedules import BALANCED, UNMEASURED, at_step
from keras_distill.training import first_batch

# Batches of arrays, and gradients that are taken for none: of the reference, and of a
# term relative to it.
BATCHES, NONE, RELATIVE = 4, 1e-12, 1e-7


def reference(distiller, found: PartGradients) -> tuple[str, float]:
    """Return the part that weights are balanced against, and how hard it pulls.

    It is the labels' loss; without one, the first term, at its weight.

    Raises:
        ValueError: it has no gradient.
    """
    step = distiller.optimizer.iterations
    name, weight = LABELS, 0.0
    if LABELS in found.norms:
        weight = _number(at_step(distiller.label_source, step))
    if not weight:
        name, bound = next(iter(distiller.terms.items()))
        weight = bound.term.weight
        is_balanced = isinstance(weight, str)
        weight = bound.term.loss.recommended_weight if is_balanced else weight
        weight = _number(at_step(weight, step))
    pull = weight * found.norms[name]
    if not np.isfinite(pull) or pull < NONE:
        raise ValueError(
            f"Weights are balanced against '{name}', whose gradient by the student's "
            f"weights is {found.norms[name]:g} at weight {weight:g}. Compile a loss for "
            "labels, pass label_weight above 0, or, without labels, a first term of a "
            "weight above 0."
        )
    return name, pull


def balanced_weights(
    distiller, found: PartGradients, shares: Mapping[str, float]
) -> dict[str, float]:
    """Return the weight of each term with which it pulls its share of the reference.

    Args:
        distiller: whose parts were measured.
        found: what was measured.
        shares: of terms, by name.

    Raises:
        ValueError: a term has no gradient by the student's weights.
    """
    _, pull = reference(distiller, found)
    weights = {}
    for name, share in shares.items():
        norm = found.norms[name]
        if not np.isfinite(norm) or norm < RELATIVE * pull:
            raise ValueError(
                f"The weight of term '{name}' cannot be measured: its gradient by the "
                f"student's weights is {norm:g} on the first batches. Tap another layer, "
                "or pass a number as its weight."
            )
        weights[name] = share * pull / norm
    return weights


def balance(distiller, batch) -> None:
    """Measure the weights that are `"balanced"` and not measured yet, and set them.

    Args:
        distiller: compiled, with its adapters.
        batch: `(x, y, ...)`, all of the data if they are arrays; None if unknown.
    """
    open_terms = {
        name: bound
        for name, bound in distiller.terms.items()
        if bound.term.weight == BALANCED and _number(bound.weight) == UNMEASURED
    }
    if not open_terms:
        return
    batches = _batches(batch, distiller.rows_of_step)
    if not batches:
        raise ValueError(
            f"The weights of {', '.join(open_terms)} are '{BALANCED}', but no batch of the "
            "data can be read before the training. Pass arrays, a tf.data.Dataset, a "
            "PyDataset or a generator, or the weights that kd.suggest_weights returns."
        )
    found = measure(distiller, batches)
    shares = {name: bound.term.loss.share for name, bound in open_terms.items()}
    for name, weight in balanced_weights(distiller, found, shares).items():
        open_terms[name].weight.assign(weight)
        logging.getLogger("keras_distill").info(
            "The weight of term '%s' is balanced: %g.", name, weight
        )


def batches_of(distiller) -> list[tuple]:
    """Return the first batches of the data of the running `fit`, none if unknown."""
    return _batches(distiller.plan.batch, distiller.rows_of_step)


def _batches(batch, rows: int | None) -> list[tuple]:
    """Return some batches of arrays; of data that are batches, the first.

    Args:
        batch: as in `balance`.
        rows: of a step, None if the batch is one.
    """
    if batch is None:
        return []
    if rows is None:
        return [keras.utils.unpack_x_y_sample_weight(batch)]
    drawn = first_batch.rows_of(batch, rows * BATCHES)
    return [] if drawn is None else first_batches(drawn, BATCHES, rows)


def _number(value) -> float:
    return float(keras.ops.convert_to_numpy(value))
