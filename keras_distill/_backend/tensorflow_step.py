"""A training step on TensorFlow."""

import keras


def train_step(distiller, data) -> dict:
    """Take one step; return the logs."""
    import tensorflow as tf

    x, *labels = distiller.enter(data)
    knowledge = distiller.run_teacher(x, labels[0])
    copied = _values_of(distiller.copies)
    inputs = _after(copied, x)
    with tf.GradientTape(persistent=distiller.takes_parts()) as tape:
        loss = distiller.run_student(inputs, *labels, knowledge)
        scaled = distiller.objectives(loss)
    variables = distiller.trainable_variables
    gradients = distiller.joined([tape.gradient(x, variables) for x in scaled])
    gradients = _after(copied, gradients)
    distiller.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return distiller.update_logs(x, *labels, loss)


def _values_of(copies) -> list:
    """Return the values of the copies, once they have read the student's weights."""
    import tensorflow as tf

    return [] if copies is None else [tf.identity(v.value) for v in copies.variables]


def _after(copied: list, values):
    """Make inputs, or gradients, wait until the copies have read the student's weights.

    A copy's read and the update of what it read are ordered by a control edge alone,
    which TensorFlow drops where a path of tensors leads there too, even through a shape
    that it then folds into a constant. A path through all inputs stays: statistics that
    the student's run updates depend on its inputs, updates on the gradients.
    """
    if not copied:
        return values
    import tensorflow as tf

    def passed(value):
        return None if value is None else tf.identity(value)

    with tf.control_dependencies(copied):
        return keras.tree.map_structure(passed, values)
