"""A teacher that takes a batch in portions knows what it knows of the whole."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from tests.differentiation import compilers
from tests.distillers.conftest import conv_pair

TAPS = kd.taps.as_taps(["logits", "stack1", "stack2"])
numbers = ops.convert_to_numpy


def images(count):
    rng = np.random.default_rng(count)
    return rng.normal(size=(count, 8, 8, 1)).astype("float32")


def asked(teacher, x):
    found = teacher(x, TAPS)
    return [teacher.logits(found[TAPS[0]]), *(found[tap] for tap in TAPS[1:])]


def agree(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(numbers(a), numbers(b), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_knowledge_is_that_of_the_whole_batch(nets, count, compiler):
    known = {"none": lambda function: function, **compilers()}
    if compiler not in known:
        pytest.skip(f"{keras.backend.backend()} has no such compiled step")
    x, teacher = ops.convert_to_tensor(images(count)), kd.Teacher(nets[1], portions=3)
    found = known[compiler](lambda x: asked(teacher, x))(x)
    agree(found, asked(kd.Teacher(nets[1]), x))


@pytest.mark.parametrize("jit", [False, True])
def test_batches_whose_size_a_trace_does_not_know(nets, jit):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("shapes are known where other backends compile")
    import tensorflow as tf

    teacher = kd.Teacher(nets[1], portions=3)
    signature = [tf.TensorSpec((None, 8, 8, 1))]
    run = tf.function(lambda x: asked(teacher, x), signature, jit_compile=jit)
    for count in (1, 2, 3, 4, 7, 9):
        x = images(count)
        agree(run(x), asked(kd.Teacher(nets[1]), x))


def test_members_of_an_ensemble_take_portions(nets):
    x, models = images(7), [nets[1], conv_pair()[1]]
    taps = kd.taps.as_taps(["logits", "1/stack2"])
    whole, parts = (kd.EnsembleTeacher(models, portions=n) for n in (1, 3))
    for tap in taps:
        known, found = (teacher(x, taps)[tap] for teacher in (whole, parts))
        if tap.is_logits:
            known, found = (
                t.logits(k, 4.0) for t, k in ((whole, known), (parts, found))
            )
        np.testing.assert_allclose(numbers(found), numbers(known), atol=1e-5)
    assert kd.freeze(parts, x).portions == 3


def test_a_portion_is_all_that_runs_at_a_time(nets):
    sizes = []

    class Noted(keras.layers.Layer):
        def call(self, x):
            sizes.append(x.shape[0])
            return x

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(Noted()(inputs)))
    teacher = kd.Teacher(model, portions=4)
    sizes.clear()
    teacher(np.zeros((8, 4), "float32"), TAPS[:1])
    assert sizes == [2, 2, 2, 2]


def test_a_student_learns_the_same(nets, cross_entropy):
    x, y = images(10), np.arange(10) % 3

    def fit(portions):
        keras.utils.set_random_seed(4)
        student, teacher = conv_pair()
        teacher = kd.Teacher(teacher, portions=portions)
        terms = [
            kd.Term(kd.losses.SoftTarget()),
            kd.Term(kd.losses.Hint(), "stack1", "stack1", weight=1.0),
        ]
        distiller = kd.Distiller(student, teacher, terms=terms)
        distiller.compile(keras.optimizers.SGD(0.01), cross_entropy)
        # The last batch is of two.
        distiller.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        return student.get_weights()

    for a, b in zip(fit(1), fit(3), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_gradients_by_the_input_are_refused_before_anything_runs(nets):
    student, teacher = nets
    teacher = kd.Teacher(teacher, portions=2)
    term = kd.Term(kd.losses.Jacobian(), "class_gradient", "class_gradient")
    with pytest.raises(ValueError, match=r"2 portions.*class_gradient"):
        kd.Distiller(student, teacher, terms=[term])


@pytest.mark.parametrize("portions", [0, -1, 2.5, None])
def test_portions_are_a_count(nets, portions):
    with pytest.raises(ValueError, match="portions is how many"):
        kd.Teacher(nets[1], portions=portions)
