"""The trace that code runs in: another inside of a loop, a branch or a remat."""

import keras
import pytest
from keras import ops

from keras_distill._backend.traces import current_trace
from tests.differentiation import compilers

JAX = keras.backend.backend() == "jax"


def inside(run):
    """Return whether a function that is run in some way is in another trace."""
    before, found = current_trace(), []

    def note(x):
        found.append(before == current_trace())
        return x

    run(note, ops.ones((3, 2)))
    assert before == current_trace()
    return not found[-1]


def test_eager_code_is_in_one_trace():
    assert not inside(lambda note, x: note(x))


def test_a_vectorized_map_is_another():
    assert inside(lambda note, x: ops.vectorized_map(note, x))


def test_a_remat_is_another_where_no_gradient_leaves_it():
    if keras.backend.backend() == "torch":
        assert not inside(lambda note, x: keras.remat(note)(x))
    if JAX:
        assert inside(lambda note, x: keras.remat(note)(x))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape():
            assert inside(lambda note, x: keras.remat(note)(x))


@pytest.mark.parametrize("compiler", ["traced", "jit"])
def test_a_compiled_function_is_one_trace(compiler):
    if compiler not in compilers() or keras.backend.backend() == "torch":
        pytest.skip(f"{keras.backend.backend()} has no such compiler")
    found = []

    def run(x):
        before = current_trace()
        y = ops.sin(x)
        found.append(before == current_trace())
        carry = ops.zeros_like(x[0])
        ops.scan(
            lambda h, s: (found.append(before == current_trace()) or h, s), carry, x
        )
        found.append(inside(lambda note, x: ops.vectorized_map(note, x)))
        return y

    compilers()[compiler](run)(ops.ones((3, 2)))
    assert found[0] and not found[1] and found[-1]
