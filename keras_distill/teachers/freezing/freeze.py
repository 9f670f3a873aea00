"""A frozen copy of a teacher, and the check that its outputs are the same."""

from collections.abc import Iterable
from typing import Any, TypeVar

import keras
import numpy as np

from keras_distill import taps as tapping
from keras_distill._backend.files import to_numpy
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill._backend.number_checks import check_in
from keras_distill.data.preprocessing import carry_preprocessing
from keras_distill.taps import Tap
from keras_distill.teachers.base_teacher import check_trained
from keras_distill.teachers.ensemble import EnsembleTeacher
from keras_distill.teachers.freezing.copying import Copier
from keras_distill.teachers.freezing.folding import foldable, graphs_of
from keras_distill.teachers.teacher import Teacher

# As a fraction of the largest absolute value; 1e-4 for other dtypes.
_TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}

Kind = TypeVar("Kind", keras.Model, EnsembleTeacher)


def freeze(
    model: Kind,
    inputs: Any,
    *,
    keep: str | Tap | Iterable[str | Tap] = (),
    dtype: str | keras.DTypePolicy | None = None,
    tolerance: float | None = None,
) -> Kind:
    r"""Copy a trained model into a cheaper form for inference only.

    As the weights of a teacher are constant, a batch normalization with mean m, variance
    v, scale gamma and offset beta is folded into the convolution or dense layer W, b
    before it:

    .. math::

        W' = s W, \quad b' = s (b - m) + \beta,
            \quad s = \frac{\gamma}{\sqrt{v + \epsilon}}

    if nothing else uses that layer's output. Elsewhere, as in pre-activation nets, it
    becomes one multiplication and one addition. Dropout and noise become identities. All
    layers keep their names, paths and outputs, so every tap works as before, except on
    the folded layers themselves: their names end in `"_folded"`, and a tap on one raises
    an error that says so. `MarginActivation` finds the statistics that it needs.

    The copy has separate weights, none of them trainable; the model is not changed.
    Layers with a custom call are copied as a whole, with nothing folded inside.

    Args:
        model: a functional or Sequential model, possibly nested, or an ensemble of such
            models.
        inputs: one batch of the model's inputs, on which copy and model are compared.
        keep: taps or paths of layers to copy unchanged, with all their sublayers.
            Default: none.
        dtype: of weights and computation, such as `"bfloat16"` or `"float16"`, except
            for quantized layers; meant for accelerators, and CPUs that have instructions
            for bfloat16. Default: that of each layer.
        tolerance: largest difference of outputs and kept taps from the model's, as a
            fraction of the largest absolute value. Default: 1e-4, or 0.01 if the copy
            computes in float16, or 0.05 in bfloat16. A GPU that multiplies float32 in
            TensorFloat-32 may need a larger one.

    Returns:
        The frozen model; for an ensemble, one of frozen members with the same average
        and weights.

    Raises:
        TypeError: `model` is not a model or an ensemble.
        ValueError: it is not built or has a custom call in place of a graph, a layer
            can't be copied or is called with training=True, a kept layer does not exist,
            the batch is empty, or the copy differs by more than the tolerance.

    Example:
        >>> distiller = kd.Distiller(student, kd.freeze(teacher, images[:64]))
    """
    if tolerance is not None:
        check_in(0, tolerance=tolerance)
    if isinstance(model, EnsembleTeacher):
        return _freeze_members(model, inputs, keep, dtype, tolerance)
    if not isinstance(model, keras.Model):
        raise TypeError(
            "kd.freeze takes a keras.Model or a kd.EnsembleTeacher; got "
            f"{type(model).__name__}."
        )
    check_trained(model)
    taps = [tap for tap in tapping.as_taps(keep) if not tap.is_output]
    layers = [tapping.find_layer(model, tap.path) for tap in taps]
    kept = {id(part) for layer in layers for part in flatten_layers(layer)}
    graphs = graphs_of(model)
    folds = [
        pair
        for pair in foldable(graphs.values())
        if not any(id(layer) in kept for layer in pair)
    ]
    policy = None if dtype is None else keras.dtype_policies.get(dtype)
    frozen = Copier(graphs, folds, kept, policy).copy(model)
    frozen.trainable = False
    carry_preprocessing(model, frozen)
    tolerance = _tolerance(frozen) if tolerance is None else tolerance
    _check_values(frozen, model, inputs, taps, tolerance)
    return frozen


def _freeze_members(ensemble, inputs, keep, dtype, tolerance) -> EnsembleTeacher:
    taps = [tap for tap in tapping.as_taps(keep) if not tap.is_output]
    how = {"dtype": dtype, "tolerance": tolerance}
    members = [
        freeze(member, inputs, keep=ensemble.member_taps(index, taps), **how)
        for index, member in enumerate(ensemble.members)
    ]
    if ensemble.classes is not None:
        pairs = zip(members, ensemble.classes, strict=True)
        members = [Teacher(member, classes=classes) for member, classes in pairs]
    return EnsembleTeacher(
        members,
        ensemble.average,
        weights=ensemble.weights,
        portions=ensemble.portions,
        predicts=ensemble.predicts,
    )


def _tolerance(model) -> float:
    """Return the default tolerance for the lowest precision that a model computes in."""
    dtypes = {layer.compute_dtype for layer in flatten_layers(model)}
    return max(_TOLERANCES.get(dtype, 1e-4) for dtype in dtypes)


def _check_values(frozen, model, inputs, taps, tolerance: float) -> None:
    """Check that outputs and taps of the frozen model equal those of the model."""
    values = []
    for net in (model, frozen):
        outputs, tapped = tapping.forward(net, inputs, taps, training=False)
        tensors = {f"tap '{tap}'": x for tap, x in tapped.items()}
        flat = keras.tree.flatten(outputs)
        tensors |= {f"output {i}": x for i, x in enumerate(flat)}
        values.append({name: to_numpy(x, "float64") for name, x in tensors.items()})
    for name, expected in values[0].items():
        if not expected.size:
            raise ValueError(
                f"'{model.name}' and its frozen copy are compared on a batch of one or "
                f"more samples; {name} has the shape {expected.shape}."
            )
        largest = np.abs(expected).max()
        gap = np.abs(values[1][name] - expected).max()
        if not gap <= tolerance * largest:
            raise ValueError(
                f"The frozen copy of '{model.name}' differs from it in {name} by "
                f"{gap:.3g}, where the largest value is {largest:.3g}; the tolerance is "
                f"{tolerance:g} of that. Pass a larger tolerance or a dtype of higher "
                "precision, or keep the layers whose values are out of bounds."
            )
