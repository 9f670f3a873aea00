"""Attention scores, queries, keys and values of attention layers can be tapped."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill import taps
from keras_distill.taps import Tap

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6, 8)).astype("float32")
TOKENS = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]], "int32")
SCORES = Tap("attention", side="scores")


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected_scores(query, key, allowed=True):
    """Return `(B, T, N, S)` from queries `(B, T, N, H)` and keys `(B, S, M, H)`."""
    query, key = (np.asarray(x, "float64") for x in (query, key))
    key = np.repeat(key, query.shape[2] // key.shape[2], axis=2)
    logits = np.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(query.shape[-1])
    scores = softmax(np.where(allowed, logits, -1e30))
    return np.swapaxes(scores, 1, 2)


def causal(steps):
    return np.tril(np.ones((steps, steps), bool))


def tapped(model, x, *wanted, training=False):
    wanted = [tap if isinstance(tap, Tap) else Tap(tap) for tap in wanted]
    outputs, found = taps.forward(model, x, wanted, training=training)
    return outputs, [ops.convert_to_numpy(found[tap]) for tap in wanted]


def attend(layer, **arguments):
    inputs = keras.Input((None, 8))
    x = layer(inputs, inputs, **arguments)
    return keras.Model(inputs, x, name="net")


def multi_head(**arguments):
    return layers.MultiHeadAttention(2, 4, name="attention", **arguments)


def grouped_query(**arguments):
    return layers.GroupQueryAttention(4, 4, 2, name="attention", **arguments)


@pytest.mark.parametrize("make", [multi_head, grouped_query])
@pytest.mark.parametrize(
    ("dropout", "is_causal"), [(0.0, False), (0.0, True), (0.4, True)]
)
def test_scores_are_those_of_the_layer(make, dropout, is_causal):
    """Those before any dropout, in training form too."""
    model = attend(make(dropout=dropout), use_causal_mask=is_causal)
    sides = "attention/query", "attention/key", SCORES
    plain = ops.convert_to_numpy(model(X, training=False))
    outputs, (query, key, scores) = tapped(model, X, *sides)
    allowed = causal(6) if is_causal else True
    np.testing.assert_allclose(scores, expected_scores(query, key, allowed), atol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(outputs), plain)
    layer = model.get_layer("attention")
    _, own = layer(
        X, X, return_attention_scores=True, use_causal_mask=is_causal, training=False
    )
    own = np.swapaxes(ops.convert_to_numpy(own), 1, 2)
    np.testing.assert_allclose(scores, own, atol=1e-5)
    _, (trained,) = tapped(model, X, SCORES, training=True)
    np.testing.assert_allclose(trained, own, atol=1e-5)
    early = taps.up_to(model, X, [SCORES])[SCORES]
    np.testing.assert_allclose(ops.convert_to_numpy(early), own, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_padding_has_no_scores_and_the_mask_comes_along(dropout):
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(7, 8, mask_zero=True, name="words")(inputs)
    model = keras.Model(inputs, multi_head(dropout=dropout)(x, x))
    found = taps.forward(model, TOKENS, [SCORES], training=True)[1][SCORES]
    mask = TOKENS != 0
    scores = ops.convert_to_numpy(found)
    padded = np.broadcast_to(~mask[:, None, None, :], scores.shape)
    assert scores[padded & mask[:, :, None, None]].max() < 1e-6
    np.testing.assert_allclose(scores[mask].sum(-1), 1.0, rtol=1e-5)
    assert scores[~mask].max() < 1e-6
    found_mask = ops.convert_to_numpy(taps.mask_of(found))
    np.testing.assert_array_equal(found_mask, mask)


class Subclassed(keras.Model):
    """A block in an attribute, which attends to itself and then across."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.blocks = [Block(), Block()]

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x)
        return x


class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4)
        self.across = layers.MultiHeadAttention(2, 4)

    def build(self, shape):
        self.attention.build(shape, shape)
        self.across.build(shape, shape)

    def call(self, x):
        x = x + self.attention(x, x)
        return x + self.across(x, x[:, :4])


def test_subclassed_models_and_several_attentions():
    model = Subclassed()
    model(X)
    paths = "blocks/1/attention", "blocks/1/across"
    wanted = [Tap(path, side="scores") for path in paths]
    sides = [f"{path}/{side}_dense" for path in paths for side in ("query", "key")]
    _, found = tapped(model, X, *wanted, *sides)
    assert found[1].shape == (3, 6, 2, 4)
    for index, scores in enumerate(found[:2]):
        query, key = found[2 + 2 * index : 4 + 2 * index]
        np.testing.assert_allclose(scores, expected_scores(query, key), atol=1e-5)
    with pytest.raises(ValueError, match="attends 2 times in a call"):
        tapped(model, X, Tap("blocks/1", side="scores"))
    with pytest.raises(ValueError, match="scores of a EinsumDense"):
        tapped(model, X, Tap("blocks/1/across/query", side="scores"))


def test_a_distiller_compares_scores():
    keras.utils.set_random_seed(0)
    student, teacher = attend(multi_head()), attend(multi_head(dropout=0.3))
    term = kd.Term(kd.losses.Hint(), SCORES, SCORES, adapter=None, name="k")
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.1))
    maps = [
        tapped(model, X, SCORES)[1][0].astype("float64") for model in (student, teacher)
    ]
    found = distiller.fit(X, verbose=0, batch_size=3, epochs=3).history["k"]
    expected = np.mean(np.square(maps[0] - maps[1])) / 2
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    assert found[2] < found[1] < found[0]


def test_the_divergence_of_scores_leaves_padding_out():
    """Soft targets of log scores at T = 1, of two lengths of padding."""
    tap = Tap("attention", side="log_scores")

    def net():
        wide = keras.initializers.RandomNormal(stddev=1.0)
        inputs = keras.Input((None,), dtype="int32")
        x = layers.Embedding(7, 8, wide, mask_zero=True)(inputs)
        return keras.Model(inputs, multi_head(kernel_initializer="orthogonal")(x, x))

    keras.utils.set_random_seed(0)
    student, teacher = net(), net()
    term = kd.Term(kd.losses.SoftTarget(1.0), tap, tap, name="k")
    found = []
    for tokens in (TOKENS, np.pad(TOKENS, ((0, 0), (0, 4)))):
        distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
        distiller.compile(keras.optimizers.SGD(0.0))
        found.append(distiller.fit(tokens, verbose=0, batch_size=3).history["k"][0])
    p, q = (tapped(model, TOKENS, SCORES)[1][0] for model in (teacher, student))
    p, q = (np.maximum(x.astype("float64"), 1e-37) for x in (p, q))
    each = (p * np.log(p / q)).sum(-1).mean(-1)
    np.testing.assert_allclose(found, each[TOKENS != 0].mean(), rtol=1e-3)


def test_heads_are_not_averaged_unasked():
    student, teacher = (
        attend(layers.MultiHeadAttention(n, 4, name="attention")) for n in (2, 4)
    )
    term = kd.Term(kd.losses.Hint(), SCORES, SCORES, name="k")
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    with pytest.raises(ValueError, match=r"Term .k.*the number N of heads"):
        distiller.bind_to(X)


def test_scores_are_named_and_saved():
    assert str(SCORES) == "attention (scores)"
    assert Tap.from_config(SCORES.get_config()) == SCORES
    with pytest.raises(ValueError, match="side is 'output', 'input', or of attention"):
        Tap("attention", side="weights")


def hub():
    return pytest.importorskip("keras_hub", reason="keras-hub is not installed").models


SMALL = {"vocabulary_size": 7, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 8}
GROUPED = {"num_query_heads": 4, "num_key_value_heads": 2}


def gpt2():
    model = hub().GPT2Backbone(**SMALL, num_heads=2, max_sequence_length=6)
    return model, "transformer_layers/1", causal(6)


def bert():
    model = hub().BertBackbone(**SMALL, num_heads=2, max_sequence_length=6)
    return model, "transformer_layers/1", True


def llama3():
    return hub().Llama3Backbone(**SMALL, **GROUPED), "transformer_layers/1", causal(6)


def gemma3():
    model = hub().Gemma3Backbone(
        **SMALL,
        **GROUPED,
        image_size=16,
        head_dim=4,
        vision_encoder=None,
        query_head_dim_normalize=True,
        use_query_key_norm=False,
        use_post_ffw_norm=False,
        use_post_attention_norm=False,
        attention_logit_soft_cap=None,
        final_logit_soft_cap=None,
        use_sliding_window_attention=False,
        sliding_window_size=16,
        layer_norm_epsilon=1e-6,
        dropout=0,
    )
    return model, "transformer_layers/1", causal(6)


@pytest.mark.parametrize("make", [gpt2, bert, llama3, gemma3])
def test_keras_hub(make):
    """Queries and keys of Llama and Gemma are turned by their positions before."""
    model, block, allowed = make()
    mask = (TOKENS != 0).astype("int32")
    x = {"token_ids": TOKENS, "padding_mask": mask}
    if "segment_ids" in model.input:
        x["segment_ids"] = np.zeros_like(TOKENS)
    paths = list(taps.layer_paths(model))
    attention = next(
        p
        for p in paths
        if p.startswith(block) and p.endswith(("attention", "attention_layer"))
    )
    sides = [
        next(p for p in paths if p in (f"{attention}/{s}", f"{attention}/{s}_dense"))
        for s in ("query", "key", "value")
    ]
    wanted = Tap(attention, side="scores"), Tap(block, side="scores"), *sides
    plain = model(x, training=False)
    outputs, (scores, of_block, query, key, value) = tapped(model, x, *wanted)
    for one, other in zip(
        keras.tree.flatten(outputs), keras.tree.flatten(plain), strict=True
    ):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (one, other)))
    layer = taps.find_layer(model, attention)
    for name in ("rotary_embedding_layer", "rope_layer"):
        if hasattr(layer, name):
            query, key = (
                ops.convert_to_numpy(getattr(layer, name)(z)) for z in (query, key)
            )
    allowed = allowed & (mask[:, None, None, :] > 0)
    rows = mask > 0
    expected = expected_scores(query, key, allowed)
    np.testing.assert_allclose(scores[rows], expected[rows], atol=1e-5)
    np.testing.assert_array_equal(of_block, scores)
    assert value.shape[:2] == (3, 6)
