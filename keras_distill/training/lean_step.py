"""Keras's call of a step on TensorFlow, without what one device does not need."""

from __future__ import annotations

import keras

# Operations of a step. One call holds a second copy of them, some 10 kB each, and saves
# a quarter of a millisecond, which a step of more does not notice.
_SMALL = 1000


class LeanStep:
    """Let a small step on one device be one call from the iterator to the logs.

    Keras wraps each step for replicas and for steps in a row, which costs a small one up
    to a twentieth of its time.
    """

    length_is_known = False

    def look_at_length(self, x) -> None:
        """Find out whether Keras knows when the data end, and asks for no more.

        Args:
            x: the data.
        """
        if callable(getattr(x, "cardinality", None)):
            # -1 stands for no end, -2 for a length that is not known.
            self.length_is_known = int(x.cardinality()) not in (-2, 0)
        else:
            arrays = all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x))
            self.length_is_known = arrays or isinstance(x, keras.utils.PyDataset)

    def build_state(self, batch) -> None:
        """Make what the first step would make: it would be traced a second time for that.

        On one device Keras leaves metrics and optimiser to the first step, whose traces
        it keeps both.

        Args:
            batch: the first one, or None.
        """
        traced = self.compiled and (not self.run_eagerly or self.left_out)
        if keras.backend.backend() != "tensorflow" or not traced or batch is None:
            return
        specs = keras.tree.map_structure(_spec, batch)
        if self._distribute_strategy is None and False not in keras.tree.flatten(specs):
            self._symbolic_build(data_batch=specs)

    def make_train_function(self, force=False):
        """Make the step."""
        known = self.train_function is not None and not force
        super().make_train_function(force)
        if not known and self._is_plain():
            self.train_function = _lean(self, self.train_function)

    def _is_plain(self) -> bool:
        """Tell whether it is compiled, one step at a time, on one device."""
        if keras.backend.backend() != "tensorflow" or self.run_eagerly:
            return False
        # Nothing public tells a model that was made outside of any strategy's scope.
        return self.steps_per_execution == 1 and self._distribute_strategy is None


def _lean(model, keras_step):
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

    in_one_call = None

    def run(iterator):
        nonlocal in_one_call
        if not isinstance(iterator, tf.data.Iterator) or _has_options(iterator):
            return keras_step(iterator)
        # At the end of the data a step in one call would move what needs no batch, as
        # the optimiser's count.
        if in_one_call and model.length_is_known:
            return from_iterator(iterator)
        if in_one_call is None:
            graph = step.get_concrete_function(iterator.element_spec).graph
            in_one_call = len(graph.get_operations()) < _SMALL
        return step(next(iterator))

    return run


def _spec(x):
    """Give a part's spec for any number of samples, None for none, False if unknown."""
    if x is None:
        return None
    try:
        dtype = keras.backend.standardize_dtype(x.dtype)
    except (AttributeError, ValueError):
        return False
    return keras.KerasTensor((None, *x.shape[1:]), dtype)


def _has_options(iterator) -> bool:
    """Tell whether a batch may lack a part, which Keras then makes None."""
    import tensorflow as tf

    parts = tf.nest.flatten(iterator.element_spec)
    return any(isinstance(part, tf.OptionalSpec) for part in parts)
