"""Attention scores: how much each step of the query takes of each key."""

import keras
from keras import layers, ops

from keras_distill._backend.keras_layers import flatten_layers


def attention_scores(
    query,
    key,
    value=None,
    bias=None,
    mask=None,
    scale=None,
    is_causal=False,
    flash_attention=None,
    attn_logits_soft_cap=None,
):
    """Return the scores `(B, N, T, S)` that fused attention weighs its values by.

    softmax(scale * q k^T + bias), where masked keys have none

    Args:
        query: `(B, T, N, H)`.
        key: `(B, S, M, H)`, M heads that divide N.
        value, bias, mask, scale, is_causal, flash_attention, attn_logits_soft_cap: as in
            `keras.ops.dot_product_attention`.
    """
    del value, flash_attention
    wide = keras.backend.result_type(query.dtype, "float32")
    key = ops.repeat(key, query.shape[2] // key.shape[2], axis=2)
    logits = ops.einsum("btnh,bsnh->bnts", ops.cast(query, wide), ops.cast(key, wide))
    logits = logits * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_logits_soft_cap is not None:
        logits = attn_logits_soft_cap * ops.tanh(logits / attn_logits_soft_cap)
    if bias is not None:
        logits = logits + ops.cast(bias, wide)
    if is_causal:
        steps, keys = (ops.arange(size) for size in ops.shape(logits)[-2:])
        earlier = ops.expand_dims(steps, -1) >= keys
        mask = earlier if mask is None else ops.logical_and(mask, earlier)
    if mask is None:
        return ops.cast(ops.softmax(logits, axis=-1), query.dtype)
    mask = ops.cast(mask, "bool")
    scores = ops.softmax(ops.where(mask, logits, -1e30), axis=-1)
    # A query that may take of no key has no scores, as in `keras.layers.Softmax`.
    return ops.cast(ops.where(mask, scores, 0.0), query.dtype)


def softmaxes(layer: keras.Layer) -> list[keras.Layer]:
    """Return the layers inside a layer that turn logits into scores."""
    inner = flatten_layers(layer, include_self=False)
    return [x for x in inner if isinstance(x, layers.Softmax)]


def steps_first(scores, layer: keras.Layer):
    """Return the scores `(B, T, N, S)` of a layer that computes `(B, N, T, S)`.

    Groups of heads `(B, M, N / M, T, S)`, which share a key, are joined.
    """
    shape = scores.shape
    heads = getattr(layer, "num_query_heads", None)
    if len(shape) == 5 and shape[1] * shape[2] == heads:
        scores = ops.reshape(scores, (-1, heads, *ops.shape(scores)[3:]))
    return ops.swapaxes(scores, 1, 2) if len(scores.shape) == 4 else scores


def log_scores(scores):
    """Return logits `(B, T, N, S)` whose softmax is the scores.

    Of a key without any scores, as a masked one is, they are so low that its softmax is 0
    up to a temperature of 50.
    """
    wide = keras.backend.result_type(scores.dtype, "float32")
    scores = ops.cast(scores, wide)
    # Finite, so that the logits of a masked query are too.
    logits = ops.log(ops.maximum(scores, 1e-37))
    return ops.where(ops.max(scores, axis=(1, 2), keepdims=True) > 0.0, logits, -1e3)
