"""Adapters of sequences leave masked steps out, or refuse a mask."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd

LENGTHS = np.array([6, 3, 1, 4])
VALID = np.arange(6) < LENGTHS[:, None]
TOKENS = np.random.default_rng(0).integers(1, 9, (4, 6)) * VALID


def net(width, seed, padding=0.0, length=6, steps=None):
    """embedding, hidden; tokens of 0 have a vector of the value `padding`."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((length,), dtype="int32")
    embedding = layers.Embedding(9, width, mask_zero=True)
    x = layers.Dense(width, "tanh", name="hidden")(embedding(tokens))
    if steps:
        x = Doubled(name="doubled")(x)
    table = embedding.get_weights()[0]
    table[0] = padding
    embedding.set_weights([table])
    return keras.Model(tokens, x)


class Doubled(layers.Layer):
    """Each step twice, with a mask of them."""

    def call(self, x):
        return ops.repeat(x, 2, axis=1)

    def compute_mask(self, inputs, previous_mask):
        return ops.repeat(previous_mask, 2, axis=1)


def train(term, tokens=TOKENS, padding=0.0, teacher=None, epochs=2):
    """Return the values of a term over some steps, which train its adapter."""
    length = tokens.shape[1]
    student = net(3, 0, padding, length)
    teacher = teacher or net(5, 1, -padding, length)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.1))
    history = distiller.fit(tokens, epochs=epochs, batch_size=4, verbose=0).history
    return distiller, history["term"]


def paraphraser(padding, length):
    keras.utils.set_random_seed(3)
    made = kd.adapters.Paraphraser()
    tokens = np.pad(TOKENS, ((0, 0), (0, length - 6)))
    teacher = net(5, 1, -padding, length)
    made.train_on(teacher, "hidden", tokens, epochs=2, batch_size=4, verbose=0)
    return made


LOSSES = {
    "projection": lambda *of: kd.losses.Hint(),
    "connector": lambda *of: kd.losses.ActivationBoundary(),
    "regressor": lambda *of: kd.losses.VariationalInformation(),
    "paraphraser": lambda *of: kd.losses.FactorTransfer(paraphraser(*of)),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_neither_values_nor_length_of_the_padding_count(kind):
    """Over steps that train the adapter, and the statistics of its normalization."""
    found = []
    for padding, length in ((0.0, 6), (4.0, 6), (2.0, 10)):
        loss = LOSSES[kind](padding, length)
        keras.utils.set_random_seed(5)
        tokens = np.pad(TOKENS, ((0, 0), (0, length - 6)))
        term = kd.Term(loss, "hidden", "hidden", weight=1.0, name="term")
        found.append(train(term, tokens, padding)[1])
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-5)


def test_the_statistics_of_a_connector_are_of_valid_steps():
    term = kd.Term(kd.losses.ActivationBoundary(), "hidden", "hidden", name="term")
    distiller, _ = train(term, epochs=1)
    (connector,) = distiller.terms["term"].student_adapters
    student = net(3, 0)
    hidden = np.array(student.predict(TOKENS, verbose=0))[VALID]
    # The connector's kernel was updated once, by a small step.
    keras.utils.set_random_seed(0)
    projected = hidden @ np.array(connector.projection.kernel)
    momentum = connector.norm.momentum
    expected = (1 - momentum) * projected.mean(0)
    np.testing.assert_allclose(connector.norm.moving_mean, expected, atol=2e-3)


def test_an_adapter_of_the_user_sees_zeros_at_masked_steps():
    found = []
    for padding in (0.0, 3.0):
        keras.utils.set_random_seed(2)
        adapter = layers.Conv1D(5, 3, padding="same")
        term = kd.Term(
            kd.losses.Hint(), "hidden", "hidden", adapter=adapter, name="term"
        )
        found.append(train(term, padding=padding)[1])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_an_adapter_that_pools_takes_the_mask():
    """Its output has no steps: the loss compares vectors."""
    pool = layers.GlobalAveragePooling1D()
    keras.utils.set_random_seed(1)
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 3, mask_zero=True)(tokens)
    teacher = keras.Model(tokens, layers.GlobalAveragePooling1D(name="pool")(x))
    term = kd.Term(kd.losses.Hint(), "hidden", "pool", adapter=pool, name="term")
    _, history = train(term, teacher=teacher, epochs=1)
    hidden = net(3, 0).predict(TOKENS, verbose=0).astype("float64")
    mean = (hidden * VALID[..., None]).sum(1) / LENGTHS[:, None]
    gap = mean - teacher.predict(TOKENS, verbose=0)
    np.testing.assert_allclose(history[0], 0.5 * (gap**2).mean(), rtol=1e-4)


@pytest.mark.parametrize("adapter", ["auto", None])
def test_masked_sequences_of_two_lengths_are_not_pooled(adapter):
    teacher = net(3, 1, steps=2)
    term = kd.Term(kd.losses.Hint(), "hidden", "doubled", adapter=adapter, name="term")
    with pytest.raises(ValueError, match="12"):
        train(term, teacher=teacher)


def test_relations_compare_sequences_of_two_lengths():
    """Each side by its own mask."""
    teacher = net(3, 1, steps=2)
    term = kd.Term(kd.losses.DistanceRelation(), "hidden", "doubled", name="term")
    _, history = train(term, teacher=teacher, epochs=1)
    student = net(3, 0).predict(TOKENS, verbose=0) * VALID[..., None]
    doubled = np.repeat(VALID, 2, axis=1)[..., None]
    teacher = net(3, 1, steps=2).predict(TOKENS, verbose=0) * doubled
    apart = []
    for side in (student, teacher):
        flat = side.reshape(4, -1).astype("float64")
        distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
        apart.append(distance / distance[distance > 0].mean())
    gap = np.abs(apart[0] - apart[1])
    expected = np.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
    np.testing.assert_allclose(history[0], expected, rtol=1e-4)


def test_an_embedding_of_whole_sequences_refuses_a_mask():
    data = {"x": TOKENS, "id": np.arange(4)}
    distiller = kd.Distiller(
        net(3, 0),
        net(5, 1),
        terms=[kd.Term(kd.losses.Contrastive(4), "hidden", "hidden")],
        label_weight=0.0,
        student_inputs="x",
        teacher_inputs="x",
        sample_ids="id",
    )
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="does not take a mask"):
        distiller.fit(data, verbose=0)
