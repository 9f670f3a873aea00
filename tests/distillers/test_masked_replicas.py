"""Under unequal masks the update of two replicas is that of one."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd

# Replicas get three samples each, with 14 and 5 valid tokens; the last batch is uneven.
LENGTHS = np.array([6, 5, 3, 1, 2, 2, 4, 1, 6])
VALID = np.arange(6) < LENGTHS[:, None]


def tagger(width, seed):
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, width, mask_zero=True)(tokens)
    x = layers.Dense(width, "tanh", name="hidden")(x)
    return keras.Model(tokens, layers.Dense(3, name="head")(x), name=f"tagger_{width}")


def sentences(rng, ignore_class):
    tokens = rng.integers(1, 9, VALID.shape) * VALID
    labels = rng.integers(0, 3, VALID.shape)
    labels[0, :4] = -1 if ignore_class == -1 else labels[0, :4]
    return tokens, labels


def run(ignore_class, reduction="sum_over_batch_size", weighted=False):
    rng = np.random.default_rng(0)
    tokens, labels = sentences(rng, ignore_class)
    student, teacher = tagger(4, 0), tagger(8, 1)
    terms = [
        kd.Term(kd.losses.SoftTarget(2.0, reduction=reduction), name="soft"),
        kd.Term(kd.losses.Hint(), "hidden", "hidden", weight=2.0),
        kd.Term(kd.losses.SimilarityMatrix(), "hidden", "hidden", weight=5.0),
        kd.Term(kd.losses.PredictionCorrelation(), name="correlation"),
        kd.Term(kd.losses.AttentionMap(), "hidden", "hidden", weight=9.0),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms)
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=ignore_class
    )
    distiller.compile(keras.optimizers.SGD(0.1), loss)
    weight = rng.uniform(0.5, 2.0, VALID.shape) if weighted else None
    logs = distiller.fit(
        tokens, labels, 6, 2, sample_weight=weight, shuffle=False, verbose=0
    )
    # The loss of one batch, which replicas divide evenly, and of an uneven one.
    for rows in (6, 9):
        part = (
            tokens[:rows],
            labels[:rows],
            weight if weight is None else weight[:rows],
        )
        found = distiller.evaluate(*part[:2], rows, 0, part[2])
        logs.history[f"evaluated {rows}"] = [found]
    return [np.array(v) for v in distiller.trainable_variables], logs.history


def run_exits(ignore_class):
    tokens, labels = sentences(np.random.default_rng(0), ignore_class)
    distiller = kd.SelfDistiller(tagger(4, 0), ["hidden"])
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=ignore_class
    )
    distiller.compile(keras.optimizers.SGD(0.1), loss)
    distiller.fit(tokens, labels, 6, 2, shuffle=False, verbose=0)
    return [np.array(v) for v in distiller.trainable_variables]


@pytest.mark.parametrize("ignore_class", [None, -1])
def test_two_replicas_of_a_self_distiller_equal_one(ignore_class, two_replicas):
    one = run_exits(ignore_class)
    with two_replicas.scope():
        two = run_exits(ignore_class)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"ignore_class": None},
        {"ignore_class": -1},
        {"ignore_class": None, "reduction": "sum"},
        {"ignore_class": -1, "weighted": True},
    ],
    ids=str,
)
@pytest.mark.long
def test_two_replicas_equal_one(arguments, two_replicas):
    one, one_logs = run(**arguments)
    with two_replicas.scope():
        two, two_logs = run(**arguments)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)
    for name, values in one_logs.items():
        np.testing.assert_allclose(two_logs[name], values, rtol=1e-4, err_msg=name)
