"""Checks of terms and models, before the first step."""

import numbers
import re
from collections import Counter
from collections.abc import Sequence

import keras

from keras_distill._backend.keras_layers import flatten_layers
from keras_distill.adapters import Match
from keras_distill.distillers.context import PROVIDERS
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.schedules import BALANCED, start_of

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
    if not isinstance(value, str):
        check_not_negative(value, what)
    elif value != BALANCED:
        raise TypeError(
            f"{what} must be a number, a schedule or '{BALANCED}'; got {value!r}."
        )


def check_not_negative(value, what: str) -> None:
    """Check that a number, or a schedule at its start, is zero or more."""
    start = start_of(value, what)
    if start < 0.0:
        raise ValueError(
            f"{what} must be 0 or more; got {start:g}. A negative weight would push the "
            "student away from its target."
        )


def listed(terms: Sequence) -> list:
    """Return terms as a list; a single one is no list of them."""
    if hasattr(terms, "loss") and hasattr(terms, "adapters"):
        raise TypeError(
            f"terms is a list of kd.Term; got the term '{terms.name}' itself. Write "
            "terms=[kd.Term(...)]."
        )
    return list(terms)


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


def has_memory(loss: DistillationLoss) -> bool:
    """Whether a loss keeps what it has seen of the training samples."""
    return type(loss).memory is not DistillationLoss.memory
