"""A student that ends in its teacher's head, and learns the features that go into it."""

from typing import NamedTuple

import keras
from keras import activations, layers

from keras_distill._backend.keras_graphs import nodes_of
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill._backend.number_checks import check_integers
from keras_distill.adapters import AveragePool
from keras_distill.adapters.adapter import linear
from keras_distill.data.preprocessing import carry_preprocessing
from keras_distill.distillers.term import Term
from keras_distill.losses import Hint
from keras_distill.taps import Tap, as_taps, find_layer, mask_of
from keras_distill.taps.layer_paths import children_of
from keras_distill.taps.layouts import channels_first_error, channels_first_layers
from keras_distill.teachers.base_teacher import check_trained
from keras_distill.teachers.freezing.copying import Copier
from keras_distill.teachers.freezing.folding import (
    graph_of,
    graphs_of,
    is_normalization,
)

PROJECTOR, HEAD = "projector", "teacher_head"
_GLOBAL_POOLING = (
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    *(layers.GlobalAveragePooling3D, layers.GlobalMaxPooling1D),
    *(layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
)
# Of values that are not negative, these return none that are.
_KEEP_SIGNS = layers.Dropout, layers.Flatten, layers.MaxPooling2D, layers.Reshape
_BY_HAND = (
    "Name layers that all paths of their model pass, at its top level: "
    "student_layer='...', teacher_layer='...'."
)


class _Features(NamedTuple):
    """A tensor in a functional model.

    Args:
        graph: the model.
        tap: that names it.
        tensor: symbolic.
    """

    graph: keras.Model
    tap: Tap
    tensor: keras.KerasTensor


def reuse_teacher_head(
    student: keras.Model,
    teacher: keras.Model,
    student_layer: str | Tap | None = None,
    teacher_layer: str | Tap | None = None,
    *,
    factor: int = 2,
    name: str | None = None,
) -> tuple[keras.Model, Term]:
    r"""Return a student that ends in its teacher's head, and the term that trains it.

    The student is cut off behind its last features f_s. A projector p brings them to the
    size of the teacher's f_t, and a frozen copy of the teacher's layers after f_t, the
    head, predicts from them. The loss compares features alone, and needs no labels:

    .. math::

        \mathrm{mean} \, (f_t - p(f_s))^2

    The projector of maps is a 1x1, a 3x3 and a 1x1 convolution, of vectors, the steps of
    sequences and the voxels of volumes three dense layers, each with batch normalization
    and ReLU; the last ReLU is left out where the teacher's features do not end in one.
    The larger of two maps is pooled to the size of the smaller: the student's in the
    model, the teacher's in the term.

    The model that is returned is the one to distill, evaluate and save: an ordinary
    functional model, `student` up to its features, `"projector"` and `"teacher_head"`.
    It shares the student's layers, which it trains, and has weights of its own for the
    head. It predicts what the teacher predicts: for logits of one that ends in
    probabilities, pass `kd.as_logits(teacher)`. Dropout in the head is left out.

    Args:
        student: functional or Sequential model, also one without a head.
        teacher: trained functional or Sequential model.
        student_layer: path of the layer that returns the student's last features, or a
            tap of its `"output"` or `"input"`. Default: what goes into the last global
            pooling; without one, into the last layer with a kernel, or, of a student that
            ends in a map, its output.
        teacher_layer: likewise for the teacher, without the last of these.
        factor: the projector has this many times fewer channels inside than the teacher's
            features. Default 2.
        name: of the model. Default: the student's, with `_reused`.

    Returns:
        The model, and a `kd.Term` for `kd.Distiller(model, teacher, terms=[term],
        label_weight=0.0)`.

    Raises:
        TypeError, ValueError: a model has a custom call or is not built, a layer does not
            exist or is not at the top level, a path bypasses the features, they have a
            mask or the two another number of axes, or the head does not take maps of
            the student's size.

    Example:
        >>> student, term = kd.reuse_teacher_head(student, teacher)
        >>> distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
        >>> distiller.compile("adam", metrics=["accuracy"])
        >>> distiller.fit(train, epochs=2)
        >>> student.save("student.keras")

    Source:
        Chen, Mei, Zhang, Wang, Feng, Chen 2022, Knowledge distillation with the reused
        teacher classifier.
    """
    check_integers(1, factor=factor)
    check_trained(teacher)
    own = _features(student, student_layer, "student")
    other = _features(teacher, teacher_layer, "teacher")
    for features, side in ((own, "student"), (other, "teacher")):
        _check_no_mask(features, side)
    projected = _projector(own, other, factor)(own.tensor)
    head = _head(other, projected)
    model = keras.Model(
        own.graph.input, head(projected), name=name or f"{student.name}_reused"
    )
    term = Term(Hint(), PROJECTOR, other.tap, weight=2.0, name="reused_head")
    return carry_preprocessing(student, model), term


def _features(model, layer, side: str) -> _Features:
    """Find the features of a model, by a layer or by its head."""
    graph = graph_of(model) if isinstance(model, keras.Model) else None
    if graph is None or not model.built:
        raise ValueError(
            f"kd.reuse_teacher_head cuts the {side} apart by its graph, and "
            f"'{getattr(model, 'name', model)}' ({type(model).__name__}) has none. Pass a "
            "functional or Sequential model. A subclassed model that returns features can "
            "be part of one: keras.Model(inputs, layers(backbone(inputs)))."
        )
    if channels_first_layers(model):
        raise ValueError(channels_first_error(model, "the last features"))
    if layer is not None:
        return _named(model, graph, layer, side)
    nodes = [node for node in nodes_of(graph) if not node.is_input]
    pools = [node for node in nodes if isinstance(node.operation, _GLOBAL_POOLING)]
    kernels = [node for node in nodes if hasattr(node.operation, "kernel")]
    ends_in_map = len(getattr(graph.output, "shape", ())) > 2
    if side == "student" and not pools and ends_in_map:
        return _Features(graph, Tap.output(), graph.output)
    if not (pools or kernels):
        raise ValueError(
            f"The {side} '{model.name}' has neither a global pooling nor a last layer with "
            f"a kernel at its top level, by which its features are found. {_BY_HAND}"
        )
    last = (pools or kernels)[-1]
    path = next(part for part, x in children_of(model) if x is last.operation)
    return _Features(graph, Tap.layer(path, side="input"), last.input_tensors[0])


def _check_no_mask(features: _Features, side: str) -> None:
    """Check that no layer after the features needs a mask, which they would not have."""
    if mask_of(features.tensor) is not None:
        raise ValueError(
            f"The {side}'s features at '{features.tap}' have a mask, which would be lost "
            "between the projector and the teacher's head. Take features behind the "
            f"pooling: {side}_layer=kd.Tap.layer('logits', side='input'), with the name "
            "of the layer that takes what the pooling returns."
        )


def _named(model, graph, layer, side: str) -> _Features:
    (tap,) = as_taps(layer)
    if tap.is_output or tap.side not in ("output", "input"):
        raise ValueError(
            f"{side}_layer is the path of a layer, or a kd.Tap of its output or input; "
            f"got {layer!r}."
        )
    found = find_layer(model, tap.path)
    nodes = [node for node in nodes_of(graph) if node.operation is found]
    if len(nodes) <= tap.call:
        raise ValueError(
            f"The layer '{tap.path}' of the {side} '{model.name}' is inside of another "
            f"one, where the model can't be cut apart. {_BY_HAND}"
        )
    node = nodes[tap.call]
    tensors = node.outputs if tap.side == "output" else node.input_tensors
    return _Features(graph, tap, tensors[0])


def _projector(own: _Features, target: _Features, factor: int) -> keras.Model:
    """Return a model from the student's features to the teacher's channels."""
    shape, wanted = tuple(own.tensor.shape), tuple(target.tensor.shape)
    if len(shape) != len(wanted) or None in (shape[-1], wanted[-1]):
        raise ValueError(
            f"The student's features {shape} can't be projected to the teacher's "
            f"{wanted}: both must be vectors, sequences or maps of known channels. "
            f"{_BY_HAND}"
        )
    inside, channels = max(wanted[-1] // factor, 1), wanted[-1]
    pool = _pool(shape[1:-1], wanted[1:-1])
    relu = _ends_in_relu(target.graph, target.tensor)
    policy = {"dtype": _producer(own.graph, own.tensor).operation.dtype_policy}
    inputs = keras.Input(batch_shape=shape, dtype=own.tensor.dtype)
    x = inputs if pool is None else pool(inputs)
    rows = (inside, 1, True), (inside, 3, True), (channels, 1, relu)
    for i, (width, size, is_relu) in enumerate(rows, start=1):
        given = {"use_bias": False, "kernel_initializer": "he_normal", **policy}
        x = linear(width, shape, size, **given, name=f"linear{i}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"norm{i}", **policy)(x)
        x = layers.ReLU(name=f"relu{i}", **policy)(x) if is_relu else x
    return keras.Model(inputs, x, name=PROJECTOR)


def _pool(sizes: tuple, targets: tuple) -> AveragePool | None:
    """Return the pooling of the student's map, None if it is nowhere the larger."""
    if sizes == targets:
        return None
    if None in sizes or None in targets:
        raise ValueError(
            f"The student's map of {sizes} and the teacher's of {targets} can't be brought "
            "to one size: sizes must be known. Fix the size of the inputs."
        )
    common = tuple(map(min, sizes, targets))
    return None if common == sizes else AveragePool(common, name="pool")


def _ends_in_relu(graph, tensor) -> bool:
    """Whether a tensor of a graph is what a ReLU returns, as far as its layers show."""
    node = _producer(graph, tensor)
    while isinstance(node.operation, _KEEP_SIGNS):
        tensor = node.input_tensors[0]
        node = _producer(graph, tensor)
    inner = (
        graph_of(node.operation) if isinstance(node.operation, keras.Model) else None
    )
    if inner is not None:
        index = [x is tensor for x in node.outputs].index(True)
        return _ends_in_relu(inner, inner.outputs[index])
    if isinstance(node.operation, layers.ReLU):
        return not node.operation.negative_slope
    return getattr(node.operation, "activation", None) is activations.relu


def _producer(graph, tensor):
    """Return the node of a graph that returns a tensor."""
    nodes = nodes_of(graph)
    return next(node for node in nodes if any(x is tensor for x in node.outputs))


def _head(features: _Features, projected) -> keras.Model:
    """Return a frozen copy of what comes after the features, for the projected ones."""
    graph, tensor = features.graph, features.tensor
    try:
        rest = keras.Model(tensor, graph.output, name=HEAD)
    except ValueError as error:
        raise ValueError(
            f"A path of the teacher bypasses '{features.tap}', so the layers after it "
            f"can't run alone. {_BY_HAND}"
        ) from error
    kept = {id(x) for x in flatten_layers(rest) if is_normalization(x)}
    head = Copier(graphs_of(rest), (), kept, None).copy(rest)
    if projected.shape != tensor.shape:
        inputs = keras.Input(batch_shape=projected.shape, dtype=tensor.dtype)
        try:
            head = keras.Model(inputs, head.call(inputs), name=HEAD)
        except ValueError as error:
            raise ValueError(
                f"The teacher's head takes features of {tuple(tensor.shape)}, and not of "
                f"{tuple(projected.shape)}, the student's size. Name a student_layer of "
                "the teacher's size, or a teacher whose head pools globally."
            ) from error
    head.trainable = False
    return head
