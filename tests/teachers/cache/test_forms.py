"""Stored predictions, against the formula in NumPy and float64."""

import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from keras_distill.teachers.cache.forms import Dense, TopK
from tests.formulas import softmax


def top_and_rest(z, k, temperature):
    p = softmax(np.asarray(z, "float64") / temperature)
    kept = np.argsort(np.argsort(-p, axis=-1, kind="stable"), axis=-1) < k
    rest = np.where(kept, 0.0, p).sum(-1, keepdims=True)
    return np.where(kept, p, rest / (p.shape[-1] - k))


def through(form, z):
    kept = {
        name: np.array(x) for name, x in form.encode(ops.convert_to_tensor(z)).items()
    }
    parts = form.parts(z.shape[1:])
    stored = {name: kept[name].astype(dtype) for name, (dtype, _) in parts.items()}
    assert {name: x.shape[1:] for name, x in stored.items()} == {
        name: shape for name, (_, shape) in parts.items()
    }
    stored = {n: x.astype("int32") if n == "classes" else x for n, x in stored.items()}
    return np.array(form.decode(stored, z.shape[1:]))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("shape", [(6, 50), (2, 3, 50)])
@pytest.mark.parametrize("k", [1, 7, 49])
def test_top_and_rest_equal_numpys(shape, k, temperature):
    z = np.random.default_rng(0).normal(size=shape, scale=3).astype("float32")
    found = through(TopK(k, temperature), z)
    p = softmax(found.astype("float64") / temperature)
    expected = top_and_rest(z, k, temperature)
    # float16 rounds gaps between logits, here up to 20, to 2^-11 of their size.
    np.testing.assert_allclose(p, expected, rtol=20 * 2**-11)
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e2, 1e4])
def test_extreme_logits_are_decoded_to_finite_ones(scale):
    z = scale * np.random.default_rng(1).normal(size=(5, 40)).astype("float32")
    found = through(TopK(5, 2.0), z)
    assert np.isfinite(found).all()
    p = softmax(found.astype("float64") / 2.0)
    np.testing.assert_allclose(p, top_and_rest(z, 5, 2.0), rtol=0.02, atol=1e-4)


def test_a_loss_on_it_equals_one_on_the_target_of_the_same_k():
    rng = np.random.default_rng(2)
    teacher, student = rng.normal(size=(2, 64, 100)).astype("float32") * 4
    found = through(TopK(8, 4.0), teacher)
    expected = kd.losses.SoftTarget(4.0, target=kd.targets.TopK(8))(teacher, student)
    assert float(kd.losses.SoftTarget(4.0)(found, student)) == pytest.approx(
        float(expected), rel=1e-3
    )


@pytest.mark.parametrize(("classes", "kind"), [(65536, "uint16"), (65537, "uint32")])
def test_classes_are_stored_in_the_narrowest_type(classes, kind):
    assert TopK(3, 1.0).parts((classes,))["classes"] == (kind, (3,))
    z = np.zeros((1, classes), "float32")
    z[0, -1], z[0, 5], z[0, 7] = 9.0, 8.0, 7.0
    kept = TopK(3, 1.0).encode(ops.convert_to_tensor(z))
    assert np.array(kept["classes"]).astype(kind).tolist() == [[classes - 1, 5, 7]]


@pytest.mark.parametrize(("dtype", "most"), [("float16", 2**-11), ("float32", 0.0)])
def test_all_numbers_are_kept_to_the_precision_of_the_type(dtype, most):
    x = np.random.default_rng(3).normal(size=(4, 3, 3, 2)).astype("float32")
    np.testing.assert_allclose(through(Dense(dtype), x), x, rtol=most)


def test_bad_arguments():
    with pytest.raises(ValueError, match="'float16' or 'float32'; got 'int8'"):
        Dense("int8")
    with pytest.raises(ValueError, match="top_k must be 1 to 9 for 10 classes; got 10"):
        TopK(10, 1.0).parts((10,))
    with pytest.raises(
        ValueError, match=r"two classes or more.*1 logit\. Leave it out"
    ):
        TopK(1, 1.0).parts((1,))
