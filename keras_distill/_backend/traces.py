"""Where code runs: eagerly, in a trace, or in a loop or branch inside of one."""

import keras


def current_trace():
    """Return the trace that code runs in, to compare with another.

    Tensors made in one trace can't be used in another: not those of one step of
    `ops.scan` behind the loop, nor those inside of `ops.vectorized_map`, `ops.cond` or
    `keras.remat` (on TensorFlow, no gradient would reach the latter).

    Stands in for a public way to learn whether a tensor has left its trace, for which no
    public issue asks: `tensorflow.python.eager.record.could_possibly_record` and
    `torch._C._functorch.maybe_current_level` are private.
    """
    if keras.backend.backend() == "jax":
        import jax.extend

        return jax.extend.core.get_opaque_trace_state()
    if keras.backend.backend() == "torch":
        import torch

        return torch._C._functorch.maybe_current_level()
    import tensorflow as tf
    from tensorflow.python.eager import record

    if tf.executing_eagerly():
        return None, record.could_possibly_record()
    graph = tf.compat.v1.get_default_graph()
    # `tf.vectorized_map` makes the first step in the graph around it.
    steps = [x for x in graph.get_name_scope().split("/") if x.startswith("loop_body")]
    return graph, tuple(steps), record.could_possibly_record()
