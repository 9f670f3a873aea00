"""A frozen copy of a teacher, and the check that it gives the same."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np

from keras_distill import taps as tapping
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.taps import Tap
from keras_distill.teachers.ensemble import EnsembleTeacher
from keras_distill.teachers.freezing.copying import Copier
from keras_distill.teachers.freezing.folding import foldable, graphs_of

# Of the largest value; 1e-4 for what is not here.
_TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}


def freeze(
    model: keras.Model | EnsembleTeacher,
    inputs,
    *,
    keep: str | Tap | Iterable[str | Tap] = (),
    dtype: str | keras.DTypePolicy | None = None,
    tolerance: float | None = None,
) -> keras.Model | EnsembleTeacher:
    """Copy a trained model into a form that only infers, at a lower cost.

    A teacher's weights no longer move, so batch normalisation, with mean m, variance
    v, scale gamma and offset beta, is folded into the convolution or dense layer W, b
    that makes its input:

        W' = s W,   b' = s (b - m) + beta,   s = gamma / sqrt(v + epsilon)

    where nothing else uses that layer's value. Elsewhere, as in pre-activation nets, it
    becomes one multiplication and one addition. Dropout and noise go. All layers have
    their old names and places, and give the old values, so every tap works as before,
    but for the folded layers themselves: they end in `"_folded"`, and a tap on one is
    an error that says so. `MarginActivation` finds the statistics it asks for.

    The copy has weights of its own, none trainable; the model is left as it is. Layers
    with code of their own are copied whole, with nothing folded inside.

    Args:
        model: a functional or Sequential model, such models in it included, or an
            ensemble of these.
        inputs: one batch of what it takes, on which copy and model are compared.
        keep: taps or paths of layers that are copied as they are, with all below them.
            Default: none.
        dtype: of weights and computation, as `"bfloat16"` or `"float16"`, but for what
            is quantised; meant for accelerators, and CPUs that have instructions for
            bfloat16. Default: that of each layer.
        tolerance: how far outputs and kept taps may be from the model's, as a part of
            the largest absolute value. Default: 1e-4; where the copy computes in
            float16 0.01, in bfloat16 0.05. A GPU that multiplies float32
            in TensorFloat-32 may need a wider one.

    Returns:
        The frozen model; of an ensemble one of frozen members, with average and
        weights.

    Raises:
        TypeError: `model` is no model or ensemble.
        ValueError: it is not built or has code of its own in place of a graph, a layer
            can't be copied or is called in training form, a kept layer is not there, the
            batch is empty, or the copy differs by more than the tolerance.

    Example:
        >>> distiller = kd.Distiller(student, kd.freeze(teacher, images[:64]))
    """
    if isinstance(model, EnsembleTeacher):
        return _freeze_members(model, inputs, keep, dtype, tolerance)
    _is_model(model)
    taps = [tap for tap in tapping.as_taps(keep) if not tap.is_logits]
    kept = _layers_below(tapping.find_layer(model, tap.path) for tap in taps)
    graphs = graphs_of(model)
    folds = [
        pair
        for pair in foldable(graphs.values())
        if not any(id(layer) in kept for layer in pair)
    ]
    policy = None if dtype is None else keras.dtype_policies.get(dtype)
    frozen = Copier(graphs, folds, kept, policy).copy(model)
    tolerance = _tolerance(frozen) if tolerance is None else tolerance
    _agree(frozen, model, inputs, taps, tolerance)
    return frozen


def _freeze_members(ensemble, inputs, keep, dtype, tolerance) -> EnsembleTeacher:
    kept = [[] for _ in ensemble.members]
    for tap in tapping.as_taps(keep):
        if not tap.is_logits:
            owner, own = ensemble.owner(tap)
            kept[owner].append(own)
    members = [
        freeze(member, inputs, keep=own, dtype=dtype, tolerance=tolerance)
        for member, own in zip(ensemble.members, kept, strict=True)
    ]
    return EnsembleTeacher(
        members,
        ensemble.average,
        weights=ensemble.weights,
        portions=ensemble.portions,
    )


def _is_model(model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            "kd.freeze takes a keras.Model or a kd.EnsembleTeacher; got "
            f"{type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built, so it can't have been trained. "
            "Train it first, or load its weights after a call on one batch."
        )


def _layers_below(layers) -> set[int]:
    return {id(part) for layer in layers for part in flatten_layers(layer)}


def _tolerance(model) -> float:
    """Give the default tolerance, by the coarsest numbers that a model computes in."""
    dtypes = {layer.compute_dtype for layer in flatten_layers(model)}
    return max(_TOLERANCES.get(dtype, 1e-4) for dtype in dtypes)


def _agree(frozen, model, inputs, taps, tolerance: float) -> None:
    """Check that outputs and taps of the frozen model are those of the model."""
    values = []
    for net in (model, frozen):
        outputs, tapped = tapping.forward(net, inputs, taps, training=False)
        found = {f"tap '{tap}'": x for tap, x in tapped.items()}
        for place, x in enumerate(keras.tree.flatten(outputs)):
            found[f"output {place}"] = x
        values.append({name: _array(x) for name, x in found.items()})
    for name, expected in values[0].items():
        if not expected.size:
            raise ValueError(
                f"'{model.name}' and its frozen form are compared on a batch of one or "
                f"more samples; {name} has the shape {expected.shape}."
            )
        largest = np.abs(expected).max()
        gap = np.abs(values[1][name] - expected).max()
        if not gap <= tolerance * largest:
            raise ValueError(
                f"The frozen form of '{model.name}' differs from it in {name} by "
                f"{gap:.3g}, where the largest value is {largest:.3g}; the tolerance is "
                f"{tolerance:g} of that. Ask for a wider tolerance, for a dtype of "
                "higher precision, or keep layers whose values are out of bounds."
            )


def _array(tensor) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")
