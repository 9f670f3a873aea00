"""Network recasting: the blocks of a network are replaced one by one."""

from collections.abc import Sequence

import keras

from keras_distill import taps
from keras_distill._backend.number_checks import check_in, check_integers
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
    r"""Return the stages that recast a network into another, block by block.

    From the input on, each block of the student is trained alone, after the blocks that
    are already recast, to reproduce the output of the teacher's block:

    .. math::

        \frac{1}{2} \, \mathrm{mean} \, (A_t - A_s)^2

    A block whose output shape differs from the teacher's is recast together with the
    next ones, up to the first that has the teacher's shape. Finally, the whole student
    is fine-tuned on labels and on the logits:

    .. math::

        \lambda \, \ell_{\mathrm{label}}
            + \frac{w}{K} \sum_{k=1}^{K} (z_{t,k} - z_{s,k})^2

    over the K classes, with lambda, the `label_weight`, and w, the `logit_weight`, as
    in the paper, whose block loss is twice this one. The logs show the
    `kd.losses.LogitRegression` of the logits, half the sum; its weight is
    `2 / K * logit_weight`. Layers that both models have may start from the teacher's
    weights: `kd.copy_weights`.

    Args:
        student: functional model to train.
        teacher: functional model to recast.
        blocks: paths of the student's and the teacher's last layer, for each block.
        epochs: epochs for each block. Default 1.
        fine_tuning_epochs: epochs for the fine-tuning; 0 skips it. Default 1.
        optimizer: optimizer of each stage. Default Adam.
        logit_weight: weight of the logits in the fine-tuning. Default 1.
        label_weight: weight of the labels in the fine-tuning. Default 1.

    Returns:
        Stages for `kd.fit_stages`.

    Raises:
        ValueError: no blocks, a missing layer, or last blocks of different shapes.

    Example:
        >>> stages = kd.recasting_stages(
        ...     student, teacher, [("stack1", "stack1"), ("stack2", "stack2")], epochs=2)
        >>> distiller = kd.Distiller(student, teacher)
        >>> distiller.compile("adam", loss)
        >>> kd.fit_stages(distiller, stages, train)

    Source:
        Yu, Kang, Choi 2019, Network recasting: a universal method for network
        architecture transformation.
    """
    if not blocks:
        raise ValueError("There are no blocks to recast; pass pairs of layers.")
    check_integers(1, epochs=epochs)
    check_integers(0, fine_tuning_epochs=fine_tuning_epochs)
    check_in(0, logit_weight=logit_weight, label_weight=label_weight)
    stages, begin = [], None
    for i, (student_layer, teacher_layer) in enumerate(blocks):
        shapes = [
            tuple(taps.find_layer(model, path).output.shape[1:])
            for model, path in ((student, student_layer), (teacher, teacher_layer))
        ]
        if shapes[0] != shapes[1]:
            if i + 1 == len(blocks):
                raise ValueError(
                    f"The last block has no matching shape: '{student_layer}' has "
                    f"{shapes[0]}, the teacher's '{teacher_layer}' {shapes[1]}. End the "
                    "last block at layers of the same shape."
                )
            continue
        term = Term(Hint(), student_layer, teacher_layer, weight=1.0, adapter=None)
        stages.append(
            Stage(
                [term],
                trains=student_layer if begin is None else (begin, student_layer),
                label_weight=0.0,
                optimizer=optimizer,
                epochs=epochs,
                name=f"recast {student_layer}",
            )
        )
        begin = student_layer
    if fine_tuning_epochs:
        classes = student.output.shape[-1]
        logits = Term(LogitRegression(), weight=2.0 / classes * logit_weight)
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
    student: keras.Model, teacher: keras.Model, student_layer: str, teacher_layer: str
) -> keras.Model:
    """Join the student up to a layer with the teacher after the corresponding layer.

    This is the intermediate result of recasting: it shows the effect of each block.

    Args:
        student, teacher: functional models.
        student_layer: path of the student's layer.
        teacher_layer: path of a layer of the same shape that all of the teacher's paths
            from input to output pass.

    Returns:
        A model that shares the weights of both.

    Raises:
        ValueError: the shapes differ, or a path bypasses the teacher's layer.

    Example:
        >>> mixed = kd.mixed_network(student, teacher, "stack1", "stack1")
        >>> mixed.predict(images)
    """
    output = taps.find_layer(student, student_layer).output
    joint = taps.find_layer(teacher, teacher_layer).output
    if tuple(output.shape[1:]) != tuple(joint.shape[1:]):
        raise ValueError(
            f"The models can't be joined: '{student_layer}' has the shape "
            f"{tuple(output.shape)}, the teacher's '{teacher_layer}' {tuple(joint.shape)}. "
            "Choose layers of the same shape."
        )
    try:
        rest = keras.Model(joint, teacher.output, name="rest_of_teacher")
    except ValueError as error:
        raise ValueError(
            f"A path of the teacher bypasses '{teacher_layer}', so the layers after it can't "
            "run alone. Choose a layer through which all paths pass."
        ) from error
    return keras.Model(student.inputs, rest(output), name="mixed")


def copy_weights(
    student: keras.Model, teacher: keras.Model, layers: Sequence[str]
) -> None:
    """Copy the teacher's weights to the student, for layers that both have.

    Args:
        student, teacher: any models.
        layers: layer paths, the same in both.

    Raises:
        ValueError: a layer does not exist, or its weights differ in shape.

    Example:
        >>> kd.copy_weights(student, teacher, ["logits"])
    """
    for path in layers:
        weights = taps.find_layer(teacher, path).get_weights()
        taps.find_layer(student, path).set_weights(weights)
