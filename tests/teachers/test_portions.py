"""A teacher that takes a batch in portions returns what it does for the whole."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from tests.differentiation import compilers
from tests.nets import conv_pair

TAPS = kd.taps.as_taps(["logits", "stack1", "stack2"])
numbers = ops.convert_to_numpy


def images(count):
    rng = np.random.default_rng(count)
    return rng.normal(size=(count, 8, 8, 1)).astype("float32")


def knowledge(teacher, x):
    found = teacher(x, TAPS)
    return [teacher.logits(found[TAPS[0]]), *(found[tap] for tap in TAPS[1:])]


def agree(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(numbers(a), numbers(b), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("compiler", ["none", "traced", "jit"])
def test_knowledge_is_that_of_the_whole_batch(nets, count, compiler):
    available = {"none": lambda function: function, **compilers()}
    if compiler not in available:
        pytest.skip(f"{keras.backend.backend()} has no such compiled step")
    x, teacher = ops.convert_to_tensor(images(count)), kd.Teacher(nets[1], portions=3)
    found = available[compiler](lambda x: knowledge(teacher, x))(x)
    agree(found, knowledge(kd.Teacher(nets[1]), x))


@pytest.mark.parametrize("jit", [False, True])
def test_batches_without_a_static_size(nets, jit):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("shapes are known where other backends compile")
    import tensorflow as tf

    teacher = kd.Teacher(nets[1], portions=3)
    signature = [tf.TensorSpec((None, 8, 8, 1))]
    run = tf.function(lambda x: knowledge(teacher, x), signature, jit_compile=jit)
    for count in (1, 2, 3, 4, 7, 9):
        x = images(count)
        agree(run(x), knowledge(kd.Teacher(nets[1]), x))


class RecordSizes(keras.layers.Layer):
    """Record the sizes of the batches it was called with."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.sizes = []

    def call(self, x):
        self.sizes.append(x.shape[0])
        return x


def recording(name="net"):
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(3)(RecordSizes()(inputs)), name=name)


def sizes_of(model):
    return next(x.sizes for x in model.layers if isinstance(x, RecordSizes))


@pytest.mark.parametrize("several", [False, True])
def test_the_net_is_called_with_each_portion(several):
    models = [recording("a"), recording("b")][: 2 if several else 1]
    teacher = (
        kd.EnsembleTeacher(models, portions=4)
        if several
        else kd.Teacher(models[0], portions=4)
    )
    for model in models:
        sizes_of(model).clear()
    teacher(np.zeros((8, 4), "float32"), iter(TAPS[:1]))
    assert [sizes_of(model) for model in models] == [[2, 2, 2, 2]] * len(models)


def test_members_of_an_ensemble_return_the_same(nets):
    x, models = images(7), [nets[1], conv_pair()[1]]
    taps = kd.taps.as_taps(["logits", "1/stack2"])
    whole, parts = (kd.EnsembleTeacher(models, portions=n) for n in (1, 3))
    expected, found = (teacher(x, taps) for teacher in (whole, parts))
    agree([found[taps[1]]], [expected[taps[1]]])
    agree(
        *(
            [teacher.logits(k[taps[0]], 4.0)]
            for teacher, k in ((parts, found), (whole, expected))
        )
    )
    assert kd.freeze(parts, x).portions == 3


def test_parts_of_the_inputs_may_be_none():
    inputs = {
        "a": keras.Input((4,), name="a"),
        "b": keras.Input((2,), name="b", optional=True),
    }
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs["a"]))
    x = {"a": np.random.default_rng(0).normal(size=(5, 4)).astype("float32"), "b": None}
    found, expected = (kd.Teacher(model, portions=n)(x, TAPS[:1]) for n in (2, 1))
    agree(found.values(), expected.values())


class Folded(keras.layers.Layer):
    def call(self, x):
        return ops.reshape(x, (-1, 2))


def folding():
    inputs = keras.Input((4,))
    x = Folded(name="folded")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(ops.reshape(x, (-1, 4))))


def test_tensors_that_are_not_batch_first():
    taps = [kd.Tap("folded")]
    with pytest.raises(ValueError, match=r"'folded', 6 for 3, are not"):
        kd.Teacher(folding(), portions=3)(np.zeros((7, 4), "float32"), taps)


def test_tensors_that_are_not_batch_first_where_no_size_is_static():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("shapes are known where other backends compile")
    import tensorflow as tf

    teacher, tap = kd.Teacher(folding(), portions=3), kd.Tap("folded")
    run = tf.function(lambda x: teacher(x, [tap])[tap], [tf.TensorSpec((None, 4))])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"folded.*counted"):
        run(np.zeros((7, 4), "float32"))


def test_a_mask_raises():
    x = keras.layers.Masking()(np.ones((4, 3, 2), "float32"))
    inputs = keras.Input((3, 2))
    model = keras.Model(inputs, keras.layers.GRU(3)(inputs))
    with pytest.raises(ValueError, match=r"dense inputs without a Keras mask.*a mask"):
        kd.Teacher(model, portions=2)(x, TAPS[:1])


def test_sparse_inputs_raise():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("sparse tensors are TensorFlow's")
    import tensorflow as tf

    with pytest.raises(ValueError, match=r"dense inputs.*got SparseTensor"):
        kd.Teacher(recording(), portions=2)(tf.sparse.from_dense(tf.eye(4)), TAPS[:1])


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


def test_input_gradients_raise_before_anything_runs(nets):
    student, teacher = nets
    teacher = kd.Teacher(teacher, portions=2)
    term = kd.Term(
        kd.losses.Jacobian(),
        kd.Tap.input_gradient("first_class"),
        kd.Tap.input_gradient("first_class"),
    )
    with pytest.raises(ValueError, match=r"2 portions.*class_gradient"):
        kd.Distiller(student, teacher, terms=[term])
    with pytest.raises(ValueError, match=r"2 portions.*class_gradient"):
        teacher(images(4), term.teacher)


@pytest.mark.parametrize("portions", [0, -1, 2.5, True, None])
def test_portions_are_a_count(nets, portions):
    with pytest.raises(ValueError, match="portions is an integer"):
        kd.Teacher(nets[1], portions=portions)
