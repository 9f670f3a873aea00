"""Functions that TensorFlow calls without keeping what they belong to."""

import weakref
from collections.abc import Callable


def weakly(owner, function: Callable) -> Callable:
    """Return a function of arrays that calls `function(owner, *arrays)`.

    `tf.numpy_function` keeps what it calls as long as the default graph, which is as long
    as the process (tensorflow/tensorflow issue 35084); so it gets a function that leaves
    the owner to others.

    Args:
        owner: an object that lives as long as the graph is run.
        function: an unbound method, or a function that does not refer to the owner.

    Raises:
        RuntimeError: the owner is gone when the function is called.
    """
    reference, kind = weakref.ref(owner), type(owner).__name__

    def call(*arrays):
        alive = reference()
        if alive is None:
            raise RuntimeError(
                f"The {kind} that this graph calls is gone. Keep the dataset or the "
                "distiller that it belongs to."
            )
        return function(alive, *arrays)

    return call
