"""Knowledge that is in the data: which column is whose, and plain inputs without it."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import linear, points

X, Y = points()
Z = np.random.default_rng(1).normal(size=(12, 3)).astype("float32")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def divergence(teacher, student, temperature=4.0):
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def distill(student, teacher=None, loss=CROSS_ENTROPY, **arguments):
    teacher = teacher or kd.GivenTeacher(logits="z")
    distiller = kd.Distiller(student, teacher, **arguments)
    distiller.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    return distiller


@pytest.mark.parametrize("student_inputs", [None, "x"])
@pytest.mark.parametrize("form", ["arrays", "stream"])
def test_a_column_teaches(form, student_inputs):
    student = linear("student")
    distiller = distill(student, student_inputs=student_inputs)
    logits = student.predict(X, verbose=0)
    student.compile(loss=CROSS_ENTROPY, metrics=["accuracy"])
    expected = student.evaluate(X, Y, verbose=0)
    # Before and after the first fit.
    np.testing.assert_array_equal(distiller.predict(X, verbose=0), logits)
    assert distiller.evaluate(X, Y, verbose=0) == pytest.approx(expected)
    data = ({"x": X, "z": Z}, Y)
    if form == "stream":
        tf = pytest.importorskip("tensorflow")
        data = (tf.data.Dataset.from_tensor_slices(data).batch(12),)
    for validation in ((X, Y), ({"x": X, "z": Z}, Y)):
        logs = distiller.fit(
            *data, batch_size=12, verbose=0, validation_data=validation
        ).history
        gap = divergence(Z, logits).mean()
        assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)
        assert logs["val_loss"][0] == pytest.approx(expected[0], rel=1e-5)
    for x in (X, {"x": X, "z": Z}):
        np.testing.assert_array_equal(distiller.predict(x, verbose=0), logits)
        assert distiller.evaluate(x, Y, verbose=0) == pytest.approx(expected)
    logs = distiller.train_on_batch({"x": X, "z": Z}, Y, return_dict=True)
    assert float(logs["soft_target"]) == pytest.approx(gap, rel=1e-4)


def test_a_step_is_that_of_the_softened_column():
    student = linear("student")
    w, b = (np.array(v, "float64") for v in student.get_weights())
    distiller = kd.Distiller(student, kd.GivenTeacher(logits="z"), label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.5))
    distiller.fit({"x": X, "z": Z}, batch_size=12, verbose=0)
    gradient = 4.0 * (softmax(X @ w + b, 4.0) - softmax(Z, 4.0)) / len(X)
    found = np.array(student.get_weights()[0])
    np.testing.assert_allclose(found, w - 0.5 * X.T @ gradient, atol=1e-6)


def test_columns_of_layers_and_a_student_of_several_inputs():
    inputs = {name: keras.Input((4,), name=name) for name in ("a", "b")}
    hidden = keras.layers.Add(name="sum")(list(inputs.values()))
    student = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    features = np.random.default_rng(2).normal(size=(12, 4)).astype("float32")
    teacher = kd.GivenTeacher(logits="z", **{"backbone/stack2": "f"})
    terms = [
        kd.Term(kd.losses.SoftTarget()),
        kd.Term(kd.losses.Hint(), "sum", "backbone/stack2", 1.0, adapter=None),
    ]
    x = {"a": X, "b": 2 * X, "z": Z, "f": features, "id": np.arange(12)}
    plain = {name: x[name] for name in ("a", "b")}
    logits = student.predict(plain, verbose=0)
    for selection in (None, ["a", "b"]):
        distiller = distill(
            student, teacher, terms=terms, student_inputs=selection, sample_ids="id"
        )
        logs = distiller.fit(x, Y, batch_size=12, verbose=0).history
        assert logs["hint"][0] == pytest.approx(
            ((3 * X - features) ** 2).mean() / 2, rel=1e-4
        )
        gap = divergence(Z, logits).mean()
        assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)
        for inputs in (x, plain):
            found = distiller.predict(inputs, verbose=0)
            np.testing.assert_allclose(found, logits, rtol=1e-5)


def test_columns_by_index():
    student = linear("student")
    distiller = distill(student, kd.GivenTeacher(logits=1))
    gap = divergence(Z, student.predict(X, verbose=0)).mean()
    logs = distiller.fit([X, Z], Y, batch_size=12, verbose=0).history
    assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)
    found = distiller.predict(X, verbose=0)
    np.testing.assert_array_equal(found, student.predict(X, verbose=0))


def test_masked_tokens_of_a_column_do_not_count():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 9, (4, 5))
    tokens[::2, 3:] = 0
    inputs = keras.Input((5,), dtype="int32")
    hidden = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    student = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    z = rng.normal(size=(4, 5, 3)).astype("float32")
    gaps = divergence(z, student.predict(tokens, verbose=0))
    distiller = kd.Distiller(student, kd.GivenTeacher(logits="z"), label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    logs = distiller.fit({"x": tokens, "z": z}, batch_size=4, verbose=0).history
    assert logs["soft_target"][0] == pytest.approx(gaps[tokens > 0].mean(), rel=1e-4)


def test_a_saved_distiller_gets_its_columns_again(tmp_path):
    distiller = distill(linear("student"))
    x = {"x": X, "z": Z}
    logs = distiller.fit(x, Y, batch_size=12, verbose=0).history
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), distiller.predict(X, verbose=0)
    )
    loaded.set_teacher(kd.GivenTeacher(logits="z"))
    again = loaded.fit(x, Y, batch_size=12, verbose=0).history
    assert again["soft_target"] == pytest.approx(logs["soft_target"], rel=1e-5)


def test_replicas_have_each_their_part(two_replicas):
    student = linear("student")
    gap = divergence(Z, student.predict(X, verbose=0)).mean()
    with two_replicas.scope():
        copy = linear("student")
        copy.set_weights(student.get_weights())
        distiller = distill(copy)
    logs = distiller.fit({"x": X, "z": Z}, Y, batch_size=12, verbose=0).history
    assert logs["soft_target"][0] == pytest.approx(gap, rel=1e-4)


def test_what_is_not_given_is_refused():
    with pytest.raises(ValueError, match="needs the columns"):
        kd.GivenTeacher()
    with pytest.raises(ValueError, match=r"\(logits=-1\) is an index from the end"):
        kd.GivenTeacher(logits=-1)
    with pytest.raises(ValueError, match=r"sample_ids=-1 .* is an index from the end"):
        distill(linear("student"), kd.GivenTeacher(logits=1), sample_ids=-1).fit(
            [X, Z, np.arange(12)], Y, verbose=0
        )
    term = kd.Term(kd.losses.Hint(), "logits", "stack2")
    with pytest.raises(
        ValueError, match=r"give \['logits'\].*'hint' taps \['stack2'\]"
    ):
        distill(linear("student"), terms=[term])
    gradient = kd.Tap.input_gradient()
    term = kd.Term(kd.losses.GradientAttention(), gradient, gradient)
    with pytest.raises(ValueError, match="no gradient with respect to the input"):
        distill(linear("student"), terms=[term])
    distiller = distill(linear("student"))
    for x in (X, {"x": X}, {"x": X, "other": Z}):
        with pytest.raises(ValueError, match="have no column 'z'"):
            distiller.fit(x, Y, verbose=0)
    distiller.fit({"x": X, "z": Z}, Y, verbose=0)
    with pytest.raises(ValueError, match="have no column 'z'"):
        distiller.fit({"x": X}, Y, verbose=0)
    with pytest.raises(ValueError, match="class counts differ"):
        distill(linear("student")).fit({"x": X, "z": Z[:, :2]}, Y, verbose=0)
    with pytest.raises(ValueError, match="can't tell one GivenTeacher"):
        kd.CachedTeacher("cache", kd.GivenTeacher(logits="z")).recipe.fingerprints()
