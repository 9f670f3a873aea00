"""Keras's train function on TensorFlow, without what a single device does not need.

Keras wraps each step for replicas and for several steps per execution, which costs a
small one up to a twentieth of its time.
"""

import keras

from keras_distill._backend.keras_trainer import strategy_of

# Operations of a step. One call holds a second copy of them, some 10 kB each, and saves
# a quarter of a millisecond, which is negligible for a larger step.
_SMALL = 1000


def length_is_known(x) -> bool:
    """Whether Keras knows when the data end, and asks for no batch past it."""
    if callable(getattr(x, "cardinality", None)):
        # -1 stands for no end, -2 for a length that is not known.
        return int(x.cardinality()) not in (-2, 0)
    arrays = all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x))
    return arrays or isinstance(x, keras.utils.PyDataset)


def build_state(model, batch) -> None:
    """Build metrics and optimizer now, which avoids a second trace of the step.

    On one device Keras leaves them to the first step, of which it keeps both traces.
    """
    traced = model.compiled and (not model.run_eagerly or model.plan.left_out)
    if keras.backend.backend() != "tensorflow" or not traced or batch is None:
        return
    specs = keras.tree.map_structure(_spec, batch)
    if strategy_of(model) is None and False not in keras.tree.flatten(specs):
        model.build_state(specs)


def applies(model) -> bool:
    """Whether a step is compiled, one per execution, on one device of TensorFlow."""
    if keras.backend.backend() != "tensorflow" or model.run_eagerly:
        return False
    return model.steps_per_execution == 1 and strategy_of(model) is None


def compiled(model, keras_step):
    """Compile a small step as one call, from the iterator to the logs.

    Data that it does not take go to Keras's step.
    """
    import tensorflow as tf

    step = tf.function(
        model.train_step,
        reduce_retracing=True,
        jit_compile=model.jit_compile,
        autograph=False,
    )

    @tf.function(reduce_retracing=True, autograph=False)
    def from_iterator(iterator):
        return step(iterator.get_next())

    is_small = None

    def run(iterator):
        nonlocal is_small
        if not isinstance(iterator, tf.data.Iterator) or _has_options(iterator):
            return keras_step(iterator)
        # At the end of the data a step in one call would still run what needs no batch,
        # such as the count of the optimizer's steps.
        if is_small and model.plan.length_is_known:
            return from_iterator(iterator)
        if is_small is None:
            graph = step.get_concrete_function(iterator.element_spec).graph
            is_small = len(graph.get_operations()) < _SMALL
        return step(next(iterator))

    return run


def _spec(x):
    """Return a spec for any number of samples, None for None, False if unknown."""
    if x is None:
        return None
    try:
        dtype = keras.backend.standardize_dtype(x.dtype)
    except (AttributeError, ValueError):
        return False
    return keras.KerasTensor((None, *x.shape[1:]), dtype)


def _has_options(iterator) -> bool:
    """Whether a batch may lack a part, which Keras then replaces by None."""
    import tensorflow as tf

    parts = tf.nest.flatten(iterator.element_spec)
    return any(isinstance(part, tf.OptionalSpec) for part in parts)
