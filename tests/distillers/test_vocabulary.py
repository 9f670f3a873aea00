"""A distiller that never makes the logits takes the step of one that does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd

pytestmark = pytest.mark.long

VOCABULARY, LENGTH, LABEL_WEIGHT = 300, 6, 0.5
STATES = kd.Tap("head", side="input")
TIED = kd.Tap("table", call=1, side="input")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(width, name="student", *, mask=False, bias=True, after=None, **head):
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 4, mask_zero=mask)(inputs)
    x = layers.Dense(width, "tanh", name="states")(x)
    x = layers.Dense(VOCABULARY, use_bias=bias, name="head", **head)(x)
    return keras.Model(inputs, after(x) if after else x, name=name)


def tied_net(width, name="student", **_):
    table = layers.ReversibleEmbedding(VOCABULARY, width, name="table")
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Dense(width, "tanh")(table(inputs))
    return keras.Model(inputs, table(x, reverse=True), name=name)


def tokens(count=8):
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, VOCABULARY, (2, count, LENGTH)).astype("int32")
    x[1, 4:], x[2, 1:] = 0, 0
    return x, y


def in_chunks(student=STATES, teacher=STATES, weight=1.0, **arguments):
    given = {"label_weight": LABEL_WEIGHT, "chunk": 5, **arguments}
    loss = kd.losses.VocabularySoftTarget(2.0, **given)
    return kd.Term(loss, student, teacher, weight=weight)


def train(make, terms, loss, how=None, data=None, epochs=2, **arguments):
    """Give the student's weights, all that moved, and the first epoch's loss."""
    keras.utils.set_random_seed(2)
    student, teacher = make(3), make(5, "teacher")
    for variable in student.variables:
        # Zeros, as of a bias, would hide a gradient that goes astray.
        variable.assign(variable + keras.random.normal(variable.shape, seed=4))
    distiller = kd.Distiller(student, teacher, terms=terms, **arguments)
    distiller.compile(keras.optimizers.SGD(0.5), loss, **(how or {}))
    x, y, *weight = data or tokens()
    weight = {"sample_weight": weight[0]} if weight else {}
    logs = distiller.fit(
        x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, **weight
    )
    return [np.array(w) for w in student.weights], logs.history["loss"][0]


def same_step(make, tap=STATES, other=STATES, rtol=1e-5, **arguments):
    """Check that losses on states and on logits take the same steps; give the weights."""
    found = train(make, [in_chunks(tap, other)], None, **arguments)
    soft = kd.Term(kd.losses.SoftTarget(2.0), weight=1.0)
    whole = train(make, [soft], CROSS_ENTROPY, label_weight=LABEL_WEIGHT, **arguments)
    assert found[1] == pytest.approx(whole[1], rel=rtol)
    for one, other in zip(found[0], whole[0], strict=True):
        np.testing.assert_allclose(one, other, atol=rtol * np.abs(other).max())
    return found[0]


HOW = [
    {"jit_compile": False},
    pytest.param({"jit_compile": True}, marks=pytest.mark.long),
    {"run_eagerly": True},
]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_the_step_is_that_of_the_losses_on_logits(how):
    same_step(net, how=how)


def test_of_nets_without_bias():
    same_step(lambda *names: net(*names, bias=False))


@pytest.mark.parametrize("how", HOW[:2], ids=str)
def test_of_tied_embeddings(how):
    same_step(tied_net, TIED, TIED, how=how)


def test_of_an_embedding_with_weights_of_its_own_in_reverse():
    def untied(width, name="student"):
        inputs = keras.Input((None,), dtype="int32")
        x = layers.Embedding(VOCABULARY, width)(inputs)
        table = layers.ReversibleEmbedding(
            VOCABULARY, width, tie_weights=False, name="table"
        )
        return keras.Model(inputs, table(x, reverse=True), name=name)

    tap = kd.Tap("table", side="input")
    same_step(untied, tap, tap)


def test_under_a_mask():
    make = lambda *names: net(*names, mask=True)  # noqa: E731
    masked = same_step(make)
    plain = train(net, [in_chunks()], None)[0]
    assert np.abs(masked[-1] - plain[-1]).max() > 1e-3


@pytest.mark.parametrize("shape", [(8, 1), (8, LENGTH)], ids=["samples", "tokens"])
def test_with_sample_weights(shape):
    weight = np.random.default_rng(3).uniform(0.0, 2.0, shape)
    weighted = same_step(net, data=(*tokens(), weight))
    plain = train(net, [in_chunks()], None)[0]
    assert np.abs(weighted[-1] - plain[-1]).max() > 1e-3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("head", [None, "float32"])
def test_in_mixed_precision(policy, head):
    """The product rounds as the layer's; sums of its gradients are in float32 here."""
    keras.config.set_dtype_policy(policy)
    given = {"dtype": head} if head else {}
    make = lambda *names: net(*names, mask=True, **given)  # noqa: E731
    rtol = 2e-3 if policy == "mixed_float16" else 2e-2
    same_step(make, rtol=rtol)


def test_two_replicas_are_one_on_the_global_batch(two_replicas):
    one, loss = train(net, [in_chunks()], None)
    with two_replicas.scope():
        two, both = train(net, [in_chunks()], None)
    assert both == pytest.approx(loss, rel=1e-5)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class NotToBeRun(layers.Layer):
    """Fails where it runs, though not where it is traced."""

    def call(self, logits):
        return logits + tf.gather(tf.zeros(3), tf.size(logits))


def test_the_step_leaves_the_logits_out():
    """Both nets' last layers are pruned, with what would fail behind them."""
    make = lambda *names: net(*names, after=NotToBeRun())  # noqa: E731
    found = train(make, [in_chunks()], None, how=HOW[0])
    expected = train(net, [in_chunks()], None, how=HOW[0])
    for one, other in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(one, other)
    soft = [kd.Term(kd.losses.SoftTarget(2.0), weight=1.0)]
    with pytest.raises(tf.errors.InvalidArgumentError):
        train(make, soft, None, how=HOW[0])


def disagreement(teacher, student):
    """Total variation distance of the predictions."""
    p, q = (np.exp(z - z.max(-1, keepdims=True)) for z in (teacher, student))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return 0.5 * np.abs(p - q).sum(-1).mean()


def test_the_student_comes_closer_to_the_teacher():
    x, y = tokens(64)
    student, teacher = net(16), net(5, "teacher")
    head = teacher.get_layer("head")
    head.kernel.assign(4.0 * keras.random.normal(head.kernel.shape, seed=1))
    term = in_chunks(label_weight=0.0)
    distiller = kd.Distiller(student, teacher, terms=[term])
    distiller.compile(keras.optimizers.Adam(0.02))
    before = disagreement(teacher.predict(x, verbose=0), student.predict(x, verbose=0))
    distiller.fit(x, y, epochs=40, verbose=0)
    after = disagreement(teacher.predict(x, verbose=0), student.predict(x, verbose=0))
    assert after < 0.5 * before


def test_a_schedule_moves_the_temperature():
    falling = keras.optimizers.schedules.PolynomialDecay(4.0, 4, 1.0)
    loss = kd.losses.VocabularySoftTarget(falling, chunk=5)
    found = train(net, [kd.Term(loss, STATES, STATES, weight=1.0)], None)
    soft = kd.Term(kd.losses.SoftTarget(falling), weight=1.0)
    whole = train(net, [soft], None)
    for one, other in zip(found[0], whole[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_loaded_it_goes_on(tmp_path):
    student, teacher = net(3), net(5, "teacher")
    distiller = kd.Distiller(student, teacher, terms=[in_chunks()])
    distiller.compile(keras.optimizers.SGD(0.5))
    distiller.fit(*tokens(), verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    again.set_teacher(teacher)
    for model in (distiller, again):
        model.fit(*tokens(), shuffle=False, verbose=0)
    for a, b in zip(distiller.variables, again.variables, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-6)


def distill(net, other, **arguments):
    return kd.Distiller(net, other, terms=[in_chunks(**arguments)])


def fit(distiller, x, y=None):
    distiller.compile("sgd")
    distiller.fit(x, y, verbose=0)


def capped(width, name="student"):
    table = layers.ReversibleEmbedding(
        VOCABULARY, width, logit_soft_cap=30.0, name="table"
    )
    inputs = keras.Input((None,), dtype="int32")
    return keras.Model(inputs, table(table(inputs), reverse=True), name=name)


class Doubled(layers.Dense):
    """A layer with arithmetic of its own."""

    def call(self, inputs):
        return 2.0 * super().call(inputs)


def doubled(width, name="student"):
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(VOCABULARY, width)(inputs)
    return keras.Model(inputs, Doubled(VOCABULARY, name="head")(x), name=name)


def other_vocabulary():
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(VOCABULARY, 4)(inputs)
    x = layers.Dense(VOCABULARY - 1, name="head")(x)
    return keras.Model(inputs, x, name="teacher")


def ensemble():
    members = net(5, "teacher"), net(5, "other")
    return kd.EnsembleTeacher(members)


BAD = {
    "the layer's output": (
        lambda: distill(net(3), net(5), student=kd.Tap("head")),
        ["The tap 'head' of 'student'", "not the input of a layer", "SoftTarget"],
    ),
    "the logits": (
        lambda: distill(net(3), net(5, "teacher"), teacher="logits"),
        ["The tap 'logits' of 'teacher'", "not the input of a layer"],
    ),
    "a layer that is no product": (
        lambda: distill(net(3), net(5), student=kd.Tap("embedding", side="input")),
        ["the input of 'embedding', a Embedding", "ReversibleEmbedding in reverse"],
    ),
    "a hidden layer": (
        lambda: distill(net(3), net(5), student=kd.Tap("states", side="input")),
        ["'states', a Dense with the activation 'tanh'"],
    ),
    "probabilities": (
        lambda: distill(net(3, activation="softmax"), net(5)),
        ["'head', a Dense with the activation 'softmax'"],
    ),
    "a call of its own": (
        lambda: distill(doubled(3), net(5)),
        ["the input of 'head', a Doubled"],
    ),
    "capped logits": (
        lambda: distill(capped(3), net(5), student=TIED),
        ["'table', which caps its logits"],
    ),
    "the look-up": (
        lambda: distill(tied_net(3), net(5), student=kd.Tap("table", side="input")),
        ["lookup call of 'table'", "call=1"],
    ),
    "no such layer": (
        lambda: distill(net(3), net(5), student=kd.Tap("heads", side="input")),
        ["no layer 'heads'", "head"],
    ),
    "other vocabularies": (
        lambda: distill(net(3), other_vocabulary()),
        ["class counts differ", "returns 300 logits", "teacher's 299"],
    ),
    "an ensemble": (
        lambda: distill(net(3), ensemble()),
        ["An ensemble has no one last layer", "members"],
    ),
    "no labels": (
        lambda: fit(distill(net(3), net(5)), tokens()[0]),
        ["'vocabulary_soft_target' takes labels", "label_weight to 0"],
    ),
    "labels outside the vocabulary": (
        lambda: fit(distill(net(3), net(5)), tokens()[0], tokens()[1] + VOCABULARY),
        ["0..299"],
    ),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_is_refused_before_the_first_step(make, words):
    keras.utils.clear_session(free_memory=False)
    with pytest.raises(ValueError) as error:
        # Nets of any length are bound to the first batch.
        fit(make(), tokens()[0])
    for word in words:
        assert word in str(error.value)
    assert "Exception encountered when calling" not in str(error.value)


def test_a_quantized_layer_is_refused():
    teacher = net(5, "teacher")
    teacher.get_layer("head").quantize("int8")
    with pytest.raises(ValueError, match="quantized to int8"):
        fit(distill(net(3), teacher), tokens()[0])


def test_low_rank_additions_to_the_kernel_are_part_of_it():
    def adapted(width, name="student"):
        model = net(width, name)
        model.get_layer("head").enable_lora(2)
        return model

    weights = same_step(adapted)
    assert len(weights) > len(net(3).weights)
