"""Network recasting: a net's blocks replaced by others, one after another."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_distill import taps
from keras_distill.distillers.term import Term
from keras_distill.losses import Hint, LogitRegression
from keras_distill.schemes.stages import Stage


def recasting_stages(
    student: keras.Model,
    teacher: keras.Model,
    blocks: Sequence[tuple[str, str]],
    *,
    epochs: int = 1,
    fine_tuning_epochs: int = 1,
    optimizer: str | keras.Optimizer = "adam",
    logit_weight: float = 1.0,
    label_weight: float = 1.0,
) -> list[Stage]:
    """List the stages that recast a net into another, block by block.

    From the input on, each block of the student is trained, alone and behind those that
    were recast already, to give what the teacher's block gives,

        1/2 mean (A_t - A_s)^2

    (the paper's mean has no half). A block whose shape is another than the teacher's is
    recast together with the next ones, up to the first of the teacher's shape. At the
    end the whole student is fine-tuned on `logit_weight` times the logits' mean squared
    error and on labels. Layers that both nets have may begin with the teacher's weights:
    `copy_weights`.

    Args:
        student: the net to be, functional.
        teacher: the net that is recast, functional.
        blocks: pairs of layers, the student's and the teacher's, at which blocks end,
            from the input on.
        epochs: for each block. Default 1.
        fine_tuning_epochs: at the end; 0 leaves it out. Default 1.
        optimizer: of each stage. Default Adam.
        logit_weight: in the fine-tuning. Default 1.
        label_weight: in the fine-tuning. Default 1.

    Returns:
        Stages for `kd.fit_stages`.

    Raises:
        ValueError: no blocks, layers that are not there, or a last block of another
            shape than the teacher's.

    Example:
        >>> stages = kd.recasting_stages(
        ...     student, teacher, [("stack1", "stack1"), ("stack2", "stack2")], epochs=5)
        >>> distiller = kd.Distiller(student, teacher)
        >>> distiller.compile("adam", loss)
        >>> kd.fit_stages(distiller, stages, train)

    Source:
        Yu, Han, Kim, Yoo 2019, Network recasting: a universal method for network
        architecture transformation.
    """
    if not blocks:
        raise ValueError("There are no blocks to recast; give pairs of layers.")
    stages, begin = [], None
    for place, (own, other) in enumerate(blocks):
        shapes = [
            tuple(taps.find_layer(model, path).output.shape[1:])
            for model, path in ((student, own), (teacher, other))
        ]
        if shapes[0] != shapes[1]:
            if place + 1 == len(blocks):
                raise ValueError(
                    f"The last block has no matching shape: '{own}' gives {shapes[0]}, "
                    f"the teacher's '{other}' {shapes[1]}, and no block follows with "
                    "which it could be recast. End it at a layer of the same shape."
                )
            continue
        term = Term(Hint(), own, other, weight=1.0, adapter=None)
        trains = own if begin is None else (begin, own)
        stages.append(
            Stage(
                [term],
                trains=trains,
                label_weight=0.0,
                optimizer=optimizer,
                epochs=epochs,
                name=f"recast {own}",
            )
        )
        begin = own
    if fine_tuning_epochs:
        logits = Term(LogitRegression(), weight=logit_weight)
        stages.append(
            Stage(
                [logits],
                label_weight=label_weight,
                optimizer=optimizer,
                epochs=fine_tuning_epochs,
                name="fine-tuning",
            )
        )
    return stages


def mixed_network(
    student: keras.Model, teacher: keras.Model, own: str, other: str
) -> keras.Model:
    """Join the student up to a layer and the teacher behind its own.

    It is what recasting has made so far: evaluated, it tells what each block costs.

    Args:
        student, teacher: functional.
        own: the student's layer.
        other: the teacher's layer of the same shape, through which all its paths go.

    Returns:
        A model that shares the weights of both.

    Raises:
        ValueError: the shapes differ, or a path leads around the teacher's layer.

    Example:
        >>> kd.mixed_network(student, teacher, "stack1", "stack1").evaluate(test)
    """
    begin = taps.find_layer(student, own).output
    joint = taps.find_layer(teacher, other).output
    if tuple(begin.shape[1:]) != tuple(joint.shape[1:]):
        raise ValueError(
            f"'{own}' gives {tuple(begin.shape)}, the teacher's '{other}' "
            f"{tuple(joint.shape)}: the nets can't be joined there. Take later layers."
        )
    try:
        rest = keras.Model(joint, teacher.output, name="rest_of_teacher")
    except ValueError as error:
        raise ValueError(
            f"A path of the teacher leads around '{other}', so that what is behind it can't "
            "run alone. Take a layer at which all paths meet."
        ) from error
    outputs = rest(begin)
    return keras.Model(student.inputs, outputs, name="mixed")


def copy_weights(
    student: keras.Model, teacher: keras.Model, layers: Sequence[str]
) -> None:
    """Give layers that both nets have the teacher's weights.

    Args:
        student, teacher: any models.
        layers: paths of layers, the same in both.

    Raises:
        ValueError: a layer is not there, or its weights have other shapes.

    Example:
        >>> kd.copy_weights(student, teacher, ["logits"])
    """
    for path in layers:
        own, other = (taps.find_layer(model, path) for model in (student, teacher))
        own.set_weights(other.get_weights())
