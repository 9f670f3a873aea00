"""A cache of masked tensors leaves padding out, as their teacher does."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_distill as kd
from keras_distill.teachers.cache import joining

TOKENS = np.array(
    [[1, 2, 0, 0, 0, 0], [3, 1, 2, 5, 0, 0], [4, 4, 4, 4, 4, 4], [7, 0, 0, 0, 0, 0]]
).astype("int32")


def net(name, masked):
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    features = layers.Embedding(10, 4, mask_zero=masked)(tokens)
    features = layers.Dense(5, name="hidden")(features)
    model = keras.Model(tokens, layers.Dense(3)(features), name=name)
    rng = np.random.default_rng(sum(map(ord, name)))
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def data(size=2):
    x = {"tokens": TOKENS, "sample_id": np.arange(4)}
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


def cache(folder, teacher, **arguments):
    arguments = {"inputs": "tokens", "dtype": "float32"} | arguments
    return kd.CachedTeacher(folder, teacher, **arguments).build(data(), verbose=0)


def loss_of(student, cached, term):
    distiller = kd.Distiller(student, cached, terms=[term], student_inputs="tokens")
    distiller.compile(keras.optimizers.SGD(0.0))
    x = cached.join({"tokens": TOKENS, "sample_id": np.arange(4)})
    arrays = distiller.fit(x, verbose=0).history["loss"][0]
    batch = cached.join(data(4))
    np.testing.assert_allclose(
        distiller.fit(batch, verbose=0).history["loss"][0], arrays, rtol=1e-5
    )
    return arrays


def log_softmax(z):
    z = np.array(z, "float64")
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def divergences(teacher, student):
    """Return the KL divergence of each token, by NumPy."""
    log_p, log_q = log_softmax(teacher(TOKENS)), log_softmax(student(TOKENS))
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


@pytest.mark.parametrize("limit", [joining.LIMIT, 0], ids=["in memory", "on disk"])
@pytest.mark.parametrize("top_k", [None, 2])
def test_padding_is_left_out(tmp_path, limit, top_k, monkeypatch):
    monkeypatch.setattr(joining, "LIMIT", limit)
    teacher, student = net("teacher", True), net("student", False)
    values = divergences(teacher, student)
    expected = values[TOKENS > 0].mean()
    assert abs(values.mean() - expected) > 0.02 * expected
    temperature = None if top_k is None else 1.0
    cached = cache(tmp_path / "c", teacher, top_k=top_k, temperature=temperature)
    term = kd.Term(kd.losses.SoftTarget(1.0))
    np.testing.assert_allclose(loss_of(student, cached, term), expected, rtol=2e-3)
    opened = kd.CachedTeacher(tmp_path / "c", inputs="tokens")
    np.testing.assert_array_equal(
        opened.read([2, 0])["logits"]["mask"], TOKENS[[2, 0]] > 0
    )


def test_padding_of_layers_and_of_ensembles_is_left_out(tmp_path):
    student, members = net("student", False), [net("a", True), net("bc", True)]
    cached = cache(
        tmp_path / "c", kd.EnsembleTeacher(members), taps="1/hidden", temperature=1.0
    )
    hidden = [kd.Tap("hidden")]
    known, wanted = [
        np.array(kd.taps.forward(x, TOKENS, hidden, training=False)[1][hidden[0]])
        for x in (student, members[1])
    ]
    # A hint is half the squared difference.
    expected = np.square(known - wanted)[TOKENS > 0].mean() / 2
    term = kd.Term(kd.losses.Hint(), "hidden", "1/hidden", weight=1.0, adapter=None)
    np.testing.assert_allclose(loss_of(student, cached, term), expected, rtol=1e-5)
    logits = cache(tmp_path / "d", kd.EnsembleTeacher(members), temperature=1.0)
    p = sum(np.exp(log_softmax(member(TOKENS))) / 2 for member in members)
    values = (p * (np.log(p) - log_softmax(student(TOKENS)))).sum(-1)
    np.testing.assert_allclose(
        loss_of(student, logits, kd.Term(kd.losses.SoftTarget(1.0))),
        values[TOKENS > 0].mean(),
        rtol=1e-5,
    )


@pytest.mark.parametrize("masked", [True, False], ids=["both masked", "its own mask"])
def test_a_students_own_mask_counts(tmp_path, masked):
    teacher, student = net("teacher", masked), net("student", True)
    cached = cache(tmp_path / "c", teacher)
    expected = divergences(teacher, student)[TOKENS > 0].mean()
    term = kd.Term(kd.losses.SoftTarget(1.0))
    np.testing.assert_allclose(loss_of(student, cached, term), expected, rtol=1e-5)


def test_the_distance_leaves_padding_out(tmp_path):
    teacher = net("teacher", True)
    cached = cache(tmp_path / "c", teacher, top_k=1, temperature=1.0)
    log_p = log_softmax(teacher(TOKENS))
    p = np.exp(log_p)
    rest = (1 - p.max(-1, keepdims=True)) / 2
    q = np.where(p == p.max(-1, keepdims=True), p, rest)
    values = (p * (log_p - np.log(q))).sum(-1)
    valid = TOKENS > 0
    expected = np.mean([v[m].mean() for v, m in zip(values, valid, strict=True)])
    assert abs(values.mean() - expected) > 0.02 * expected
    np.testing.assert_allclose(cached.distance, expected, rtol=0.01)


def test_a_cache_without_masks_is_written_as_earlier_versions_did(tmp_path):
    teacher = net("teacher", False)
    cache(tmp_path / "c", teacher)
    assert "masks" not in json.loads((tmp_path / "c" / "cache.json").read_text())
    assert set(kd.CachedTeacher(tmp_path / "c").read([1])["logits"]) == {"all"}
    batch = {"knowledge": {"logits": {"all": ops.ones((2, 6, 3))}}}
    cached = kd.CachedTeacher(tmp_path / "c")
    assert kd.taps.mask_of(cached(batch, [kd.Tap("logits")])[kd.Tap("logits")]) is None


@pytest.mark.parametrize("name", ["padding_mask", "teacher_padding_mask"])
def test_a_padding_mask_among_the_inputs_is_cached(tmp_path, name):
    keys = ["teacher_tokens", name]
    inputs = {key: keras.Input((None,), dtype="int32", name=key) for key in keys}
    features = layers.Embedding(10, 4)(inputs["teacher_tokens"])
    teacher = keras.Model(inputs, layers.Dense(3)(features))
    student = net("student", False)
    x = {
        "tokens": TOKENS,
        "teacher_tokens": TOKENS,
        name: (TOKENS > 0).astype("int32"),
        "sample_id": np.arange(4),
    }
    cached = kd.CachedTeacher(
        tmp_path / "c", teacher, inputs={key: key for key in inputs}, dtype="float32"
    )
    cached.build(tf.data.Dataset.from_tensor_slices(x).batch(2), verbose=0)
    z = teacher({key: x[key] for key in inputs})
    log_p, log_q = log_softmax(z), log_softmax(student(TOKENS))
    expected = (np.exp(log_p) * (log_p - log_q)).sum(-1)[TOKENS > 0].mean()
    terms = [kd.Term(kd.losses.SoftTarget(1.0))]
    distiller = kd.Distiller(student, cached, terms=terms, student_inputs="tokens")
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.fit(cached.join(x), verbose=0).history["loss"][0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_interrupted_build_with_a_function_continues(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(6, 3))

    def built():
        teacher = kd.FunctionTeacher(lambda x: x @ kernel, key="1")
        cached = kd.CachedTeacher(
            tmp_path / "c", teacher, inputs="tokens", dtype="float32"
        )
        return cached.build(data(), shard_rows=2, verbose=0)

    built()
    next((tmp_path / "c").glob("shard-*")).unlink()
    found = built().read(np.arange(4))["logits"]["all"]
    np.testing.assert_allclose(found, TOKENS @ kernel, rtol=1e-6)
