"""A model that ends in logits, made of one that ends in probabilities."""

import keras
from keras import activations

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.data.preprocessing import carry_preprocessing
from keras_distill.taps.layer_paths import leaves_of
from keras_distill.taps.outlines import outline
from keras_distill.taps.tracing import input_of
from keras_distill.teachers.base_teacher import check_trained
from keras_distill.teachers.ends import (
    BY_HAND,
    PROBABILITIES,
    Ends,
    last_of_graph,
    leave_out,
)
from keras_distill.teachers.freezing.copying import Copier, cause
from keras_distill.teachers.freezing.folding import graph_of, graphs_of


def as_logits(model: keras.Model) -> keras.Model:
    r"""Return a copy of a model that ends in logits where the model ends in probabilities.

    Teachers and students are compared by logits z, of which a softmax or sigmoid makes
    probabilities; in saturated probabilities most of what a teacher knows is rounded
    away. The copy leaves that last step out:

    .. math::

        \mathrm{softmax}(\mathrm{copy}(x)) = \mathrm{model}(x)
            \quad \text{or} \quad \mathrm{sigmoid}(\mathrm{copy}(x)) = \mathrm{model}(x)

    The step may be the activation of the last layer, an `Activation` or `Softmax` layer,
    or an operation of `keras.ops` in a functional graph, also inside of nested models and
    in front of a reshape; of several outputs, all that end in one lose it. Layers keep
    their names. A class whose configuration names the activation, as the tasks of
    keras_hub, is created anew without it; other functional and Sequential models become
    a functional one.

    Args:
        model: a built `keras.Model`.

    Returns:
        A model whose weights are copies, shared with no other model; that of a task of
        keras_hub preprocesses as the task does. That of a subclass
        whose configuration does not name the activation can't be saved, as loading would
        restore it.

    Raises:
        TypeError: `model` is not a `keras.Model`.
        ValueError: it is not built, no output ends in a softmax over the last axis or a
            sigmoid that can be left out, or it can't be copied.

    Example:
        >>> model = keras.Sequential([teacher, keras.layers.Softmax()])
        >>> distiller = kd.Distiller(student, kd.as_logits(model))
    """
    check_trained(model)
    copy = _from_config(model)
    if copy is not None:
        return carry_preprocessing(model, copy)
    if graph_of(model) is None:
        copy = _copy_of(model, model.get_config())
        leave_out(copy, _specs_of(model))
        return carry_preprocessing(model, copy)
    everything = {id(layer) for layer in flatten_layers(model)}
    try:
        copy = Copier(graphs_of(model), (), everything, None).copy(model)
    except NotImplementedError as error:
        raise _no_copy(model, cause(error)) from error
    return carry_preprocessing(model, Ends(copy).model())


def _from_config(model) -> keras.Model | None:
    """Create a model again without the activation that its configuration names."""
    try:
        config = model.get_config()
    except NotImplementedError as error:
        if graph_of(model) is not None:
            return None
        needs = (
            f"{type(model).__name__} needs a get_config with all arguments. Add one."
        )
        raise _no_copy(model, needs) from error
    for key, value in config.items():
        if key.endswith("activation") and _is_probability(value):
            copy = _copy_of(model, {**model.get_config(), key: "linear"})
            if _differs_at_its_end(copy, model):
                return copy
    return None


def _is_probability(value) -> bool:
    try:
        return activations.get(value) in PROBABILITIES
    except (TypeError, ValueError):
        # Something else that is called an activation.
        return False


def _copy_of(model, config: dict) -> keras.Model:
    try:
        copy = type(model).from_config(config)
        if not copy.built:
            copy(_specs_of(model))
        copy.set_weights(model.get_weights())
    except (NotImplementedError, TypeError) as error:
        problem = (
            f"{type(model).__name__} can't be created from its get_config of "
            f"{list(config)}: {cause(error)} Let get_config return all arguments of "
            "__init__, and let __init__ take **kwargs for those of keras.Model."
        )
        raise _no_copy(model, problem) from error
    return copy


def _no_copy(model, problem: str) -> ValueError:
    return ValueError(f"'{model.name}' can't be copied: {problem} Else {BY_HAND}")


def _differs_at_its_end(copy, model) -> bool:
    """Whether a copy differs from a model by the activation of its last layer alone."""
    layers_of_both = leaves_of(model), leaves_of(copy)
    if len({len(leaves) for leaves in layers_of_both}) > 1:
        return False
    pairs = zip(*layers_of_both, strict=True)
    differing = [old for old, new in pairs if _activation(old) != _activation(new)]
    last = last_of_graph(model)
    if graph_of(model) is None:
        last = outline(model, _specs_of(model))[1]
    return len(differing) == 1 and differing[0] is last


def _activation(layer) -> str:
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", type(activation).__name__)


def _specs_of(model):
    """Return specs of what a built model takes."""
    specs = input_of(model)
    if specs is not None:
        return specs
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError(
            f"'{model.name}' has no graph, and the shape of its input is unknown. Call it "
            f"on one batch, or {BY_HAND}"
        )
    return keras.tree.map_shape_structure(keras.KerasTensor, shape)
