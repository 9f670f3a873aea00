"""The large tensors that a step of the vocabulary losses allocates, from its graph."""

import keras
import pytest
from keras import ops

import keras_distill as kd

if keras.backend.backend() != "tensorflow":
    pytest.skip("the graphs are TensorFlow's", allow_module_level=True)

import tensorflow as tf

TOKENS, CLASSES, WIDTH = (4, 64), 8192, 8
WHOLE = TOKENS[0] * TOKENS[1] * CLASSES
# Operations that neither compute nor copy.
PASSES_ON = {"Placeholder", "Identity", "IdentityN", "StopGradient", "Reshape"}
PASSES_ON |= {"While", "StatelessWhile", "InplaceUpdate"}


def operations(function, *specs):
    """List the operations of a function's graph, including those inside loops."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    inner = [graph._get_function(name).graph for name in graph._functions]
    return [op for part in (graph, *inner) for op in part.get_operations()]


def makers_of_whole_tensors(function, *specs):
    """List the operations whose outputs are used and have the size of all logits."""
    return sorted(
        op.type
        for op in operations(function, *specs)
        if op.type not in PASSES_ON
        and any((x.shape.num_elements() or 0) >= WHOLE for x in op.outputs)
        and any(x.consumers() for x in op.outputs)
    )


def gradient_of(loss):
    def gradient(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = loss(*inputs)
        return tape.gradient(value, inputs)

    return gradient


def plain_formula(teacher, student):
    log_p, log_q = (tf.nn.log_softmax(z) for z in (teacher, student))
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q))


LOGITS = tf.TensorSpec((*TOKENS, CLASSES))


def test_the_plain_formula_makes_many():
    made = makers_of_whole_tensors(gradient_of(plain_formula), LOGITS, LOGITS)
    assert len(made) >= 5


def soft_target_gradient(student, teacher):
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = kd.losses.SoftTarget(2.0)(teacher, student)
    return tape.gradient(value, student)


@pytest.mark.parametrize(
    ("dtype", "makers"), [("float32", ["Empty", "Mul"]), ("float16", ["Empty"])]
)
def test_soft_targets_make_only_the_gradient(dtype, makers):
    """The product is written to the memory of its factor, which nothing else reads."""
    specs = [tf.TensorSpec(LOGITS.shape, dtype)] * 2
    assert makers_of_whole_tensors(soft_target_gradient, *specs) == makers


def value_in_chunks(transposed=False):
    loss = kd.losses.VocabularySoftTarget(label_weight=0.5)

    def value(states, kernel, bias):
        return loss(
            states,
            states,
            teacher_head=(ops.ones((WIDTH, CLASSES)), None),
            student_head=(kernel, bias, transposed),
            labels=ops.zeros(TOKENS, "int32"),
        )

    shape = (CLASSES, WIDTH) if transposed else (WIDTH, CLASSES)
    return value, [tf.TensorSpec(x) for x in ((*TOKENS, WIDTH), shape, (CLASSES,))]


@pytest.mark.parametrize("transposed", [False, True], ids=["dense", "embedding"])
def test_the_last_product_in_chunks_makes_none(transposed):
    value, specs = value_in_chunks(transposed)
    assert makers_of_whole_tensors(gradient_of(value), *specs) == []


def test_chunks_are_processed_one_at_a_time():
    """TensorFlow's default is ten at once, and to hold the memory of each."""
    value, specs = value_in_chunks()
    every = operations(gradient_of(value), *specs)
    every += operations(soft_target_gradient, LOGITS, LOGITS)
    loops = [op for op in every if "While" in op.type]
    # One of the soft targets; for values, gradients and the kernel's parts of the other.
    assert len(loops) >= 4
    assert {op.get_attr("parallel_iterations") for op in loops} == {1}
