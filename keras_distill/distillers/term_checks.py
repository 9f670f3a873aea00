"""Checks of terms and models, before the first step."""

import numbers
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import keras

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.adapters import Match
from keras_distill.distillers.context import AUTO, PROVIDERS
from keras_distill.losses._masking import fits
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.schedules import BALANCED, start_of
from keras_distill.taps.lengths import Lengths
from keras_distill.teachers.base_teacher import CLASSES, LABELS

_RESERVED = ("loss", "label_loss", "learning_rate", "epoch", "batch")


def check_loss(loss) -> None:
    """Check that a loss is one of this package, and not a bare function."""
    if not isinstance(loss, DistillationLoss):
        raise ValueError(
            "A term's loss must be a kd.losses.DistillationLoss, which is averaged alike "
            f"on one replica and many; got {getattr(loss, '__name__', loss)!r}. Use one of "
            "kd.losses, or subclass kd.losses.DistillationLoss and move the function's "
            "body into its `call`."
        )
    if not hasattr(loss, "reduction"):
        raise TypeError(
            f"{type(loss).__name__} was not initialized: call super().__init__(**kwargs) "
            "in its __init__, which takes name, reduction and dtype."
        )
    if not isinstance(loss.match, Match):
        raise ValueError(
            f"The match of {type(loss).__name__} must be a kd.adapters.Match, such as "
            f"Match.ALL or Match.CLASSES; got {loss.match!r}."
        )
    for name in ("needs", "scheduled"):
        if isinstance(getattr(loss, name), str):
            raise TypeError(
                f"{name} of {type(loss).__name__} is a tuple of names; got the string "
                f"{getattr(loss, name)!r}. Write ({getattr(loss, name)!r},)."
            )
    unknown = [name for name in loss.needs if name not in PROVIDERS]
    if unknown:
        raise ValueError(
            f"{type(loss).__name__} needs {unknown}, which no distiller provides. Name "
            f"some of {', '.join(PROVIDERS)} in `needs`."
        )


def check_log_name(name: str) -> None:
    """Check that Keras can use a name for a layer, and that the logs do not use it."""
    if str(name).startswith("val_"):
        raise ValueError(
            "A term's name must not begin with 'val_', under which Keras logs what it "
            f"finds on validation data; got {name!r}."
        )
    if name in _RESERVED or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", str(name)):
        raise ValueError(
            f"A term's name must be letters, digits, '_', '-' or '.', and none of "
            f"{_RESERVED}, which the logs use; got {name!r}."
        )
    if "." in name and keras.backend.backend() == "torch":
        raise ValueError(
            f"torch takes no '.' in the name of a layer, as that of a term is; got "
            f"{name!r}. Use '_'."
        )


def check_taps(
    name: str, loss: DistillationLoss, student: Sequence, teacher: Sequence
) -> None:
    """Check that a term taps as many layers as its loss compares."""
    count, any_number = loss.taps, loss.several_teachers or not loss.compares_teacher
    for side, taps in (("student", student), ("teacher", teacher)):
        if len(taps) != count and not (side == "teacher" and any_number):
            raise ValueError(
                f"The loss of term '{name}' compares {count} layer(s) per side, but "
                f"{side}= names {len(taps)}: {[str(tap) for tap in taps]}. Pass "
                f"{'a tuple of ' if count > 1 else ''}{count}."
            )


def check_gradients(name: str, loss: DistillationLoss, taps: Sequence) -> None:
    """Check that losses of gradients tap gradients, and losses of logits do not."""
    layers = [tap for tap in taps if not tap.is_gradient]
    if loss.takes_gradients and layers:
        mirrored = " and kd.Tap.input_gradient(mirrored=True)" * (loss.taps > 1)
        raise ValueError(
            f"{type(loss).__name__} of term '{name}' compares gradients with respect to "
            f"the input, but '{layers[0]}' is a tensor of a layer. Tap "
            f"kd.Tap.input_gradient(){mirrored}, or use a loss of layers, such as "
            "kd.losses.Hint()."
        )
    gradients = [tap for tap in taps if tap.is_gradient]
    takes_logits = loss.match is Match.CLASSES or "student_head" in loss.needs
    if gradients and takes_logits:
        raise ValueError(
            f"{type(loss).__name__} of term '{name}' compares logits, but "
            f"'{gradients[0]}' is a gradient with respect to the input. Tap the output, "
            "or use a loss of gradients, such as kd.losses.GradientAttention()."
        )


def check_weight(value, what: str) -> None:
    """Check the weight of a term: a number, a schedule, or that it is to be balanced."""
    if isinstance(value, str) and value != BALANCED:
        raise TypeError(
            f"{what} must be a number, a schedule or '{BALANCED}'; got {value!r}."
        )
    if not isinstance(value, str):
        check_not_negative(value, what)


def check_not_negative(value, what: str) -> None:
    """Check that a number, or a schedule at its start, is zero or more."""
    start = start_of(value, what)
    if start < 0.0:
        raise ValueError(
            f"{what} must be 0 or more; got {start:g}. A negative weight would push the "
            "student away from its target."
        )


def check_adapters(name: str, adapters: Sequence, count: int, several: bool) -> None:
    """Check each adapter of a term."""
    if len(adapters) != count:
        raise ValueError(
            f"Term '{name}' has {count} tap(s) per side, but {len(adapters)} adapters."
        )
    for adapter in adapters:
        if not (
            adapter is None or adapter == "auto" or isinstance(adapter, keras.Layer)
        ):
            raise TypeError(
                f"The adapter of term '{name}' must be 'auto', None or a "
                f"keras.layers.Layer; got {adapter!r}."
            )
    layers = [adapter for adapter in adapters if isinstance(adapter, keras.Layer)]
    if count > 1 and layers and not several:
        raise ValueError(
            f"Term '{name}' compares {count} layers, and one adapter layer can't serve "
            "each: pass a tuple of adapters."
        )


def listed(terms: Sequence) -> list:
    """Return terms as a list; a single one is no list of them."""
    if hasattr(terms, "loss") and hasattr(terms, "adapters"):
        raise TypeError(
            f"terms is a list of kd.Term; got the term '{terms.name}' itself. Write "
            "terms=[kd.Term(...)]."
        )
    return list(terms)


def check_teacher_adapters(name: str, adapters: Sequence, taps: Sequence) -> None:
    """Check the layers given for the teacher's side of a term."""
    if len(adapters) != len(taps):
        raise ValueError(
            f"Term '{name}' has {len(taps)} tap(s) of the teacher, but {len(adapters)} "
            "teacher_adapter. Pass one for each tap, in a tuple if there are several."
        )
    for adapter in adapters:
        if not (adapter is None or isinstance(adapter, keras.Layer)):
            raise TypeError(
                f"The teacher_adapter of term '{name}' must be None or a "
                f"keras.layers.Layer; got {adapter!r}."
            )


def check_frozen(name: str, adapters: Iterable) -> None:
    """Check that layers on the teacher's side, which nothing trains, are not to be."""
    for adapter in adapters:
        if adapter is not None and adapter.trainable_weights:
            raise ValueError(
                f"the teacher_adapter '{adapter.name}' has trainable weights, but the loss "
                f"of term '{name}' does not train the teacher's side. Set "
                "trainable = False once it is trained, or use a layer without weights."
            )


def check_shared_classes(term, count) -> None:
    """Check the number of classes that a term compares."""
    if count is None:
        return
    name, loss = term.name, term.loss
    is_number = isinstance(count, numbers.Integral) and not isinstance(count, bool)
    if not is_number or count < 1:
        raise ValueError(
            f"shared_classes of term '{name}' is a number of classes, at least 1; got "
            f"{count!r}."
        )
    if loss.match is not Match.CLASSES and "student_head" not in loss.needs:
        raise ValueError(
            f"shared_classes of term '{name}' needs a loss that compares logits; "
            f"{type(loss).__name__} compares other tensors. Leave it out."
        )
    has_heads = type(loss).adapters is not DistillationLoss.adapters
    stages = [tap for tap in term.student if not tap.is_output]
    if has_heads and stages:
        raise ValueError(
            f"shared_classes of term '{name}' cuts logits, and '{stages[0]}' is a layer "
            f"that {type(loss).__name__} puts a head on. Leave out shared_classes, or "
            "tap the student's output."
        )


def check_terms(terms: Sequence) -> None:
    """Check that terms are terms, of different names, as the logs show each."""
    for term in terms:
        if not hasattr(term, "loss") or not hasattr(term, "adapters"):
            raise TypeError(f"terms is a list of kd.Term; got {term!r} in it.")
    twice = [name for name, n in Counter(term.name for term in terms).items() if n > 1]
    if twice:
        raise ValueError(
            f"Terms must have different names, as the logs show each; {twice} occur "
            "more than once. Name them: kd.Term(..., name='hint_stack2')."
        )


def check_keyed(keys: Sequence[str], **structures) -> None:
    """Check that what belongs to outputs of a dict names them, and is no list.

    Args:
        keys: of outputs that have no names and no order of their own.
        **structures: labels or losses, by what they are.
    """
    for what, structure in structures.items():
        if keys and isinstance(structure, (list, tuple)) and len(structure) > 1:
            raise ValueError(
                f"The student returns a dict of {list(keys)}, and its {what} are a list "
                f"of {len(structure)}, whose order says nothing of the keys. Pass a dict "
                f"of {what} by these keys."
            )


def check_student(student) -> None:
    """Check that the student is a model."""
    if not isinstance(student, keras.Model):
        raise TypeError(
            f"The student must be a keras.Model; got {type(student).__name__}."
        )


def check_different_models(student, teacher) -> None:
    """Check that the student is not its own teacher."""
    if any(model is student for model in teacher.models):
        raise ValueError(
            f"The same object, '{student.name}', is teacher and student. Give the student "
            "a model of its own, as keras.models.clone_model(teacher) creates one."
        )


def check_nothing_shared(distiller) -> None:
    """Check that a step changes no variable of the teacher.

    Frozen layers may be shared, as the backbone of two heads is.
    """
    trained = {id(v): v for v in distiller.trainable_variables}
    for layer in flatten_layers(distiller.student):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            trained |= {id(v): v for v in layer.non_trainable_variables}
    teacher = distiller.teacher
    models = teacher.models if teacher.is_apart else ()
    of_teacher = (v for model in models for v in model.variables)
    shared = [v.path for v in of_teacher if id(v) in trained]
    if shared:
        raise ValueError(
            f"Student and teacher share {len(shared)} variable(s), such as '{shared[0]}': "
            "training the student would change its teacher. Freeze the layers that they "
            "share (layer.trainable = False), or give the student copies, as "
            "keras.models.clone_model creates them."
        )


def check_has_teacher(teacher) -> None:
    """Check that there is a teacher to train with."""
    if teacher is None:
        raise ValueError(
            "The distiller has no teacher: files of a distiller leave it out. Set it "
            "with distiller.set_teacher(teacher) before fit."
        )


def check_prepared(terms: Iterable, prepared: Sequence = ()) -> None:
    """Check that the layers which losses take as trained were trained, or will be."""
    for term in terms:
        for layer in term.loss.prerequisites():
            if layer.trainable and not any(layer is x for x in prepared):
                raise ValueError(
                    f"The {type(layer).__name__} of term '{term.name}' was not trained: "
                    "its output would be meaningless. Call its train_on(teacher, tap, "
                    "images) first, or begin with a kd.ParaphraserStage."
                )


def has_memory(loss: DistillationLoss) -> bool:
    """Whether a loss keeps what it has seen of the training samples."""
    return type(loss).memory is not DistillationLoss.memory


def check_same_shapes(built: dict, teacher: dict, sizes: bool = True) -> None:
    """Check that another teacher fits the adapters that exist.

    Args:
        built: shapes of the taps, by the tap's text, that the adapters were built for.
        teacher: shapes of this teacher's.
        sizes: whether lengths, heights and widths must agree too; those of a batch may
            differ from those of another.
    """
    for tap, shape in built.items():
        agree = len(teacher[tap]) == len(shape) and teacher[tap][-1] == shape[-1]
        if not agree or (sizes and list(teacher[tap]) != list(shape)):
            raise ValueError(
                f"The distiller was built for a teacher whose '{tap}' has the shape "
                f"{shape}; this one's is {teacher[tap]}. Pass a teacher of the same "
                "architecture, or create a new Distiller."
            )


def check_masks(name: str, masks: Sequence) -> None:
    """Check the choices of a term's masks."""
    for mask in masks:
        kinds = mask is None or isinstance(mask, (str, int)) or callable(mask)
        if len(masks) != 2 or not kinds:
            raise TypeError(
                f"The mask of term '{name}' must be 'auto', None, the key of an input, a "
                f"function of the inputs, or a pair of these; got {mask!r}."
            )


def check_padding_masks(terms: Iterable, student: Lengths, teacher: Lengths) -> None:
    """Check that it is clear which padding mask a term's sequences have, and fits them."""
    for term in terms:
        sides = ("student", student, term.student), ("teacher", teacher, term.teacher)
        for choice, (side, lengths, taps) in zip(term.masks, sides, strict=True):
            if choice == AUTO and taps:
                _check_padding_mask(term.name, side, str(taps[0]), lengths)


def _check_padding_mask(name: str, side: str, tap: str, lengths: Lengths) -> None:
    masks, shape = lengths.masks.get(tap, ()), lengths.sizes[tap]
    several, fix = len(masks) > 1, "Pass mask= the key of the right input, or None."
    if several or any(mask.length != shape[1] for mask in masks):
        problem = (
            f"could be masked by {len(masks)} inputs of {shape[1]} steps"
            if several
            else f"has {shape[1]} steps, but its padding mask has {masks[0].length}"
        )
        raise ValueError(f"Term '{name}': the {side}'s '{tap}' {problem}. {fix}")


def check_mask(name: str, mask, tensors: Sequence) -> None:
    """Check that a mask has the length of what it masks, which pooling may change."""
    features = tensors[0] if tensors else None
    if mask is None or features is None or len(features.shape) <= len(mask.shape):
        return
    if not fits(mask, features):
        raise ValueError(
            f"Term '{name}': a mask of {mask.shape[1]} steps does not fit a sequence of "
            f"{features.shape[1]} steps, its shape after the adapter. Tap layers of one "
            "length, or pass an adapter layer that keeps it."
        )


def check_takes_scores(name: str, loss: DistillationLoss, taps: Iterable) -> None:
    """Check that no softmax or sigmoid is taken of attention scores."""
    for tap in taps:
        of_logits = loss.predicts in (CLASSES, LABELS)
        if tap.side == "scores" and of_logits and "scores" not in loss.masked_scores:
            what = "sigmoid" if loss.predicts == LABELS else "softmax"
            raise ValueError(
                f"Term '{name}': {type(loss).__name__} takes a {what} of what it compares, "
                f"and '{tap}' are probabilities already. Tap their logarithms: "
                f"kd.Tap({tap.path!r}, side='log_scores')."
            )


def check_masked_scores(term, masks: Sequence) -> None:
    """Check that masked keys of attention scores add nothing to a term's loss."""
    loss, taps = term.loss, (*term.student, *term.teacher)
    if all(mask is None for mask in masks):
        return
    for tap in taps:
        if tap.is_scores and tap.side not in loss.masked_scores:
            takes = [x for x in ("scores", "log_scores") if x in loss.masked_scores]
            fix = f"Tap side={takes[0]!r}, use " if takes else "Use "
            raise ValueError(
                f"Term '{term.name}': the attention scores of '{tap}' have a mask, and "
                f"{type(loss).__name__} would count masked keys of side={tap.side!r}. "
                f"{fix}kd.losses.SoftTarget(1.0) on side='log_scores' or "
                "kd.losses.LogitRegression on side='scores', or, in a loss of your own to "
                "which masked keys add nothing, name the side in `masked_scores`."
            )


def check_scores(tap, student_shape: Sequence, teacher_shape: Sequence) -> None:
    """Check that attention scores have the same heads, which no adapter is inferred for."""
    pairs = zip(student_shape[1:], teacher_shape[1:], strict=False)
    if tap.is_scores and any(a != b for a, b in pairs if None not in (a, b)):
        raise ValueError(
            f"The attention scores (B, T, N, S) of student {tuple(student_shape)} and "
            f"teacher {tuple(teacher_shape)} differ in steps or in the number N of heads: "
            "no adapter is inferred. Tap layers of as many heads, or pass layers that "
            "average them as adapters."
        )
