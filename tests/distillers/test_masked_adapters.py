"""Adapters of a user's own leave masked steps out, or are refused."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd

TOKENS = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]], "int32")


def net(seed, masks=True):
    """words, hidden, pool, head."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=masks, name="words")(tokens)
    x = layers.Dense(4, "tanh", name="hidden")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(tokens, layers.Dense(3, name="head")(x), name=f"net_{seed}")


class Mean(layers.Layer):
    """Without a mask, and without a `compute_output_shape`."""

    def call(self, x):
        return ops.mean(x, axis=1)


class MaskedMean(layers.Layer):
    def call(self, x, mask=None):
        if mask is None:
            return ops.mean(x, axis=1)
        mask = ops.cast(mask, x.dtype)[..., None]
        return ops.sum(x * mask, axis=1) / ops.sum(mask, axis=1)


class Projected(layers.Layer):
    """Has a layer inside, and no `build`."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x)


def lambda_of(function):
    return lambda: layers.Lambda(function)


def functional(pool, length=None):
    inputs = keras.Input((length, 4))
    return keras.Model(inputs, pool(layers.Dense(4)(inputs)))


def in_row(*steps):
    return lambda: keras.Sequential([step() for step in steps])


KEEP = {
    "dense": lambda: layers.Dense(4),
    "own": Projected,
    "norm": layers.LayerNormalization,
    "pointwise": lambda_of(lambda x: 2.0 * x),
    "convolution": lambda: layers.Conv1D(4, 3, padding="same"),
    "recurrent": lambda: layers.GRU(4, return_sequences=True),
}
DROP = {
    "masked": MaskedMean,
    "pool": layers.GlobalAveragePooling1D,
    "recurrent": lambda: layers.LSTM(4),
    "sum": lambda_of(lambda x: ops.sum(x, axis=1)),
    "first": lambda_of(lambda x: x[:, 0]),
    "row": in_row(lambda: layers.Dense(4), layers.GlobalAveragePooling1D),
    "graph": lambda: functional(layers.GlobalAveragePooling1D()),
}
REFUSED = {
    "mean": lambda_of(lambda x: ops.mean(x, axis=1)),
    "own_mean": Mean,
    "largest": layers.GlobalMaxPooling1D,
    "last": lambda_of(lambda x: x[:, -1]),
    "row": in_row(lambda: layers.Dense(4), Mean),
    "no_mask_behind": in_row(
        lambda_of(lambda x: 2.0 * x), layers.GlobalAveragePooling1D
    ),
    "graph": lambda: functional(lambda x: ops.mean(x, axis=1)),
}


def distiller_of(tap, masks=True, **adapters):
    term = kd.Term(kd.losses.Hint(), "hidden", tap, name="k", **adapters)
    pair = net(1, masks), net(2, masks)
    distiller = kd.Distiller(*pair, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    return distiller


def padded_alike(distiller, tokens=TOKENS):
    return [
        distiller.fit(x, verbose=0).history["k"][0]
        for x in (tokens, np.pad(tokens, ((0, 0), (0, 5))))
    ]


@pytest.mark.parametrize(
    ("adapter", "tap"),
    [
        *((make, "hidden") for make in KEEP.values()),
        *((make, "pool") for make in DROP.values()),
    ],
    ids=[*KEEP, *(f"drop_{name}" for name in DROP)],
)
def test_adapters_that_leave_padding_out_are_used(adapter, tap):
    found = padded_alike(distiller_of(tap, adapter=adapter()))
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert found[0] > 1e-8


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_adapters_that_count_padding_are_refused(make):
    distiller = distiller_of("pool", adapter=make())
    with pytest.raises(
        ValueError, match=r"'k': its adapter .*padded.*GlobalAveragePooling1D"
    ):
        distiller.fit(TOKENS, verbose=0)


def test_steps_that_are_mixed_are_refused():
    mixes = layers.Lambda(lambda x: x - ops.mean(x, axis=1, keepdims=True))
    distiller = distiller_of("hidden", adapter=mixes)
    with pytest.raises(ValueError, match="makes another value of a sequence"):
        distiller.fit(TOKENS, verbose=0)


def test_of_the_teacher_too():
    distiller = distiller_of("hidden", adapter=MaskedMean(), teacher_adapter=Mean())
    with pytest.raises(ValueError, match="its adapter 'mean"):
        distiller.fit(TOKENS, verbose=0)
    both = {"adapter": MaskedMean(), "teacher_adapter": MaskedMean()}
    distiller = distiller_of("hidden", **both)
    found = distiller.fit(TOKENS, verbose=0).history["k"][0]
    mask = (TOKENS != 0)[..., None]
    sides = [
        keras.Model(m.input, m.get_layer("hidden").output).predict(TOKENS, verbose=0)
        for m in (distiller.student, distiller.teacher.models[0])
    ]
    s, t = ((x.astype("float64") * mask).sum(1) / mask.sum(1) for x in sides)
    np.testing.assert_allclose(found, np.mean((s - t) ** 2) / 2, rtol=1e-5)


def test_without_a_mask_every_adapter_is_used():
    distiller = distiller_of("pool", masks=False, adapter=Mean())
    assert np.isfinite(distiller.fit(TOKENS, verbose=0).history["k"][0])


def test_of_one_length_an_adapter_must_use_the_mask():
    for pool, is_right in (
        (layers.GlobalAveragePooling1D(), True),
        (lambda x: ops.mean(x, axis=1), False),
    ):
        distiller = distiller_of("pool", adapter=functional(pool, length=6))
        if is_right:
            assert np.isfinite(distiller.fit(TOKENS, verbose=0).history["k"][0])
            continue
        with pytest.raises(ValueError, match="makes another value of a sequence"):
            distiller.fit(TOKENS, verbose=0)


def test_layers_inside_an_adapter_without_build_are_trained():
    adapter = Projected()
    distiller = distiller_of("hidden", adapter=adapter)
    distiller.compile(keras.optimizers.SGD(0.5))
    distiller.bind_to(TOKENS)
    before = np.array(adapter.dense.kernel)
    assert any(v is adapter.dense.kernel for v in distiller.trainable_variables)
    distiller.fit(TOKENS, verbose=0)
    assert np.abs(np.array(adapter.dense.kernel) - before).max() > 1e-6
