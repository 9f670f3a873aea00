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


def operations(function, *specs):
    """List the operations of a function's graph, those inside of loops included."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    inner = [graph._get_function(name).graph for name in graph._functions]
    return [op for part in (graph, *inner) for op in part.get_operations()]


def makers_of_whole_tensors(function, *specs):
    """List the operations that make tensors of the size of all logits, and are used."""
    return sorted(
        op.type
        for op in operations(function, *specs)
        if op.type not in PASSES_ON
        and any((x.shape.num_elements() or 0) >= WHOLE for x in op.outputs)
        and any(x.consumers() for x in op.outputs)
    )


def gradient_of(loss):
    def grad(*given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = loss(*given)
        return tape.gradient(value, given)

    return grad


def by_hand(teacher, student):
    log_p, log_q = (tf.nn.log_softmax(z) for z in (teacher, student))
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q))


LOGITS = tf.TensorSpec((*TOKENS, CLASSES))


def test_the_formula_by_hand_makes_many():
    made = makers_of_whole_tensors(gradient_of(by_hand), LOGITS, LOGITS)
    assert len(made) >= 5


def soft_target_slope(student, teacher):
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = kd.losses.SoftTarget(2.0)(teacher, student)
    return tape.gradient(value, student)


@pytest.mark.parametrize(
    ("dtype", "makers"), [("float32", ["Empty", "Mul"]), ("float16", ["Empty"])]
)
def test_soft_targets_make_but_the_gradient(dtype, makers):
    """The product is put into the memory of its factor, which nothing else reads."""
    specs = [tf.TensorSpec(LOGITS.shape, dtype)] * 2
    assert makers_of_whole_tensors(soft_target_slope, *specs) == makers


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


def test_one_chunk_is_taken_at_a_time():
    """TensorFlow would take ten, and hold what each needs."""
    value, specs = value_in_chunks()
    found = operations(gradient_of(value), *specs)
    found += operations(soft_target_slope, LOGITS, LOGITS)
    loops = [op for op in found if "While" in op.type]
    # Of one loss both at once; of the other values, gradients, the kernel's in parts.
    assert len(loops) >= 4
    assert {op.get_attr("parallel_iterations") for op in loops} == {1}
