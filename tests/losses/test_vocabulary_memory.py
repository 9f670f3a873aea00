"""What a step of the losses on a vocabulary makes, read off its graph."""

import keras
import pytest
from keras import ops

import keras_distill as kd

if keras.backend.backend() != "tensorflow":
    pytest.skip("the graphs are TensorFlow's", allow_module_level=True)

import tensorflow as tf

TOKENS, CLASSES, WIDTH = (4, 64), 8192, 8
WHOLE = TOKENS[0] * TOKENS[1] * CLASSES
# Neither computes nor copies.
PASSES_ON = {"Placeholder", "Identity", "IdentityN", "StopGradient", "Reshape"}
PASSES_ON |= {"While", "StatelessWhile", "InplaceUpdate"}


def makers_of_whole_tensors(function, *specs):
    """List the operations that make tensors of the size of all logits, and are used."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    inner = [graph._get_function(name).graph for name in graph._functions]
    return sorted(
        op.type
        for part in (graph, *inner)
        for op in part.get_operations()
        if op.type not in PASSES_ON
        and any((x.shape.num_elements() or 0) >= WHOLE for x in op.outputs)
        and any(x.consumers() for x in op.outputs)
    )


def slope_of(loss):
    def slope(*given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = loss(*given)
        return tape.gradient(value, given)

    return slope


def by_hand(teacher, student):
    log_p, log_q = (tf.nn.log_softmax(z) for z in (teacher, student))
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q))


LOGITS = tf.TensorSpec((*TOKENS, CLASSES))


def test_the_formula_by_hand_makes_many():
    made = makers_of_whole_tensors(slope_of(by_hand), LOGITS, LOGITS)
    assert len(made) >= 5


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_soft_targets_make_but_the_gradient(dtype):
    def loss(student, teacher):
        return kd.losses.SoftTarget(2.0)(tf.stop_gradient(teacher), student)

    def slope(student, teacher):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(student, teacher)
        return tape.gradient(value, student)

    spec = tf.TensorSpec(LOGITS.shape, dtype)
    assert makers_of_whole_tensors(slope, spec, spec) == ["Empty"]


@pytest.mark.parametrize("transposed", [False, True], ids=["dense", "embedding"])
def test_the_last_product_in_chunks_makes_none(transposed):
    loss = kd.losses.VocabularySoftTarget(label_weight=0.5)
    shape = (CLASSES, WIDTH) if transposed else (WIDTH, CLASSES)

    def value(states, kernel, bias):
        return loss(
            states,
            states,
            teacher_head=(ops.ones((WIDTH, CLASSES)), None),
            student_head=(kernel, bias, transposed),
            labels=ops.zeros(TOKENS, "int32"),
        )

    specs = (tf.TensorSpec(x) for x in ((*TOKENS, WIDTH), shape, (CLASSES,)))
    assert makers_of_whole_tensors(slope_of(value), *specs) == []
