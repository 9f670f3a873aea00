"""A teacher of some of its classes, in the student's order."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import linear, points

ORDER = [4, 0, 5]


def divergence(teacher, student, temperature=4.0):
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1).mean()


def soft_target(student, teacher, x, **arguments):
    distiller = kd.Distiller(student, teacher, label_weight=0.0, **arguments)
    distiller.compile(keras.optimizers.SGD(0.0))
    return distiller.fit(x, batch_size=12, verbose=0).history["soft_target"][0]


@pytest.mark.parametrize("portions", [1, 3])
def test_the_student_learns_some_of_the_classes(portions):
    student, model, x = linear("student"), linear("teacher", classes=6), points()[0]
    z, own = (m.predict(x, verbose=0).astype("float64") for m in (model, student))
    teacher = kd.Teacher(model, classes=ORDER, portions=portions)
    expected = divergence(z[:, ORDER], own)
    assert abs(expected - divergence(z[:, :3], own)) > 1e-3
    assert soft_target(student, teacher, x) == pytest.approx(expected, rel=1e-4)


def test_members_with_other_classes_are_averaged_over_common_ones():
    models = linear("a", classes=6), linear("b"), linear("c", classes=4)
    orders, x = (ORDER, slice(None), [3, 2, 0]), points()[0]
    members = kd.Teacher(models[0], classes=ORDER), models[1]
    members += (kd.Teacher(models[2], classes=[3, 2, 0]),)
    teacher = kd.EnsembleTeacher(members)
    z = [m.predict(x, verbose=0)[:, o] for m, o in zip(models, orders, strict=True)]
    taps = kd.taps.as_taps(["logits", "2/logits"])
    found = teacher(x, taps)
    np.testing.assert_allclose(found[taps[1]], z[2], rtol=1e-6)
    expected = sum(softmax(part, 2.0) for part in z) / 3
    logits = teacher.logits(found[taps[0]], 2.0)
    np.testing.assert_allclose(softmax(logits, 2.0), expected, rtol=1e-5)
    frozen = kd.freeze(teacher, x)
    np.testing.assert_allclose(frozen(x, taps)[taps[1]], z[2], rtol=1e-5)


def test_states_in_front_of_the_last_layer():
    """The loss in chunks takes the chosen columns of the teacher's last layer."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (4, 5))

    def net(classes, name):
        inputs = keras.Input((5,), dtype="int32")
        hidden = keras.layers.Embedding(9, 4)(inputs)
        outputs = keras.layers.Dense(classes, name="head")(hidden)
        model = keras.Model(inputs, outputs, name=name)
        model.set_weights([rng.normal(size=w.shape) for w in model.weights])
        return model

    student, model = net(3, "student"), net(6, "teacher")
    states = kd.Tap("head", side="input")
    term = kd.Term(kd.losses.VocabularySoftTarget(2.0), states, states, 1.0, name="k")
    teacher = kd.Teacher(model, classes=ORDER)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.fit(x, verbose=0).history["k"][0]
    z, own = (m.predict(x, verbose=0) for m in (model, student))
    assert found == pytest.approx(divergence(z[..., ORDER], own, 2.0), rel=1e-4)


def test_the_teachers_mask_stays():
    inputs = keras.Input((5,), dtype="int32")
    hidden = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(6)(hidden))
    tokens = np.random.default_rng(0).integers(0, 3, (4, 5))
    (tap,) = kd.taps.as_taps("logits")
    found = kd.Teacher(model, classes=ORDER)(tokens, [tap])[tap]
    mask = keras.ops.convert_to_numpy(kd.taps.mask_of(found))
    np.testing.assert_array_equal(mask, tokens != 0)


def test_a_cache_of_some_of_the_classes(tmp_path):
    x, _ = points(20)
    samples = kd.data.Samples(x.reshape(20, 2, 2, 1), np.zeros(20, "int64"))
    flat = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    net = keras.Sequential([flat, keras.layers.Dense(6)])
    teacher = kd.Teacher(net, classes=ORDER)
    cached = kd.CachedTeacher(tmp_path, teacher, dtype="float32")
    cached.build(samples, verbose=0)
    expected = net.predict(samples.images, verbose=0)[:, ORDER]
    found = cached.read(samples.ids)["logits"]["all"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="not built with this teacher"):
        kd.CachedTeacher(tmp_path, kd.Teacher(net), dtype="float32")


@pytest.mark.parametrize("classes", [[0, 0], [], [0.5], [1, 6], [-1]])
def test_classes_are_different_indices(classes):
    with pytest.raises(ValueError, match=r"indices of the .*logits"):
        kd.Teacher(linear("teacher", classes=6), classes=classes)


def test_classes_of_a_subclassed_model_are_checked_on_its_output():
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.head = keras.layers.Dense(4)

        def call(self, x):
            return self.head(x)

    model, x = Net(), points()[0]
    model(x)
    with pytest.raises(ValueError, match=r"logits of 'net', 0 to 3; got \[7\]"):
        soft_target(linear("student", classes=2), kd.Teacher(model, classes=[1, 7]), x)


def test_what_has_no_classes_is_refused():
    x = keras.Input((4,))
    heads = {name: keras.layers.Dense(3, name=name)(x) for name in ("kind", "place")}
    several = kd.Teacher(keras.Model(x, heads), classes=[0, 1])
    term = kd.Term(kd.losses.SoftTarget(), teacher="logits/kind")
    with pytest.raises(ValueError, match="'logits/kind' is one of several"):
        kd.Distiller(linear("student", classes=2), several, terms=[term])
    gradient = kd.Tap.input_gradient()
    term = kd.Term(kd.losses.GradientAttention(), gradient, gradient)
    teacher = kd.Teacher(linear("teacher"), classes=[0, 1])
    with pytest.raises(ValueError, match="labels are the student's"):
        kd.Distiller(linear("student", classes=2), teacher, terms=[term])
    with pytest.raises(ValueError, match=r"portions to kd\.EnsembleTeacher"):
        halves = kd.Teacher(linear("a"), portions=2)
        kd.EnsembleTeacher([halves, linear("b")])
