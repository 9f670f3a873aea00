"""Padding masks among the inputs, masks that a term names, and labels that are ignored."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from keras_distill.taps.lengths import lengths_of

RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 20, (4, 6))
MASK = (np.arange(6) < np.array([[6], [3], [4], [1]])).astype("int32")
OTHER = (np.arange(6) < np.array([[2], [5], [3], [6]])).astype("int32")


def ids_and_mask(length, prefix=""):
    ids = keras.Input((length,), dtype="int32", name=f"{prefix}token_ids")
    mask = keras.Input((length,), dtype="int32", name=f"{prefix}padding_mask")
    return ids, mask


def attended(queries, keys, mask):
    scores = ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))
    hidden = ops.cast(1 - ops.expand_dims(mask, 1), "float32")
    return ops.matmul(ops.softmax(scores - 1e9 * hidden, axis=-1), keys)


def language_model(width, seed=0, length=None, listed=False):
    """block, head; the input `padding_mask` masks what is attended to."""
    keras.utils.set_random_seed(seed)
    ids, mask = ids_and_mask(length)
    x = layers.Embedding(20, width, keras.initializers.RandomNormal(0.0, 1.0))(ids)
    x = layers.Dense(width, name="block")(attended(x, x, mask))
    x = layers.Dense(7, name="head")(x)
    inputs = {"token_ids": ids, "padding_mask": mask}
    inputs = [mask, ids] if listed else inputs
    return keras.Model(inputs, x, name=f"lm_{width}_{seed}")


def translator(width, seed=0):
    """encoder and decoder, both with a padding mask of their own."""
    keras.utils.set_random_seed(seed)
    sources, of_sources = ids_and_mask(None, "encoder_")
    targets, of_targets = ids_and_mask(None, "decoder_")
    embedding = layers.Embedding(20, width)
    x = embedding(sources)
    x = layers.Dense(width, name="encoder")(attended(x, x, of_sources))
    y = embedding(targets)
    y = attended(y, y, of_targets) + attended(y, x, of_sources)
    y = layers.Dense(width, name="decoder")(y)
    inputs = [sources, of_sources, targets, of_targets]
    return keras.Model(
        {x.name: x for x in inputs}, layers.Dense(7, name="head")(y), name=f"t{seed}"
    )


def both_sides(seq=6):
    return {
        "encoder_token_ids": IDS,
        "encoder_padding_mask": MASK,
        "decoder_token_ids": IDS[:, :seq],
        "decoder_padding_mask": OTHER[:, :seq],
    }


def layer(model, name, x):
    """Return a layer's output, in float64."""
    inner = keras.Model(model.input, model.get_layer(name).output)
    return ops.convert_to_numpy(inner(x)).astype("float64")


def part(student, teacher, term, x, y=None, loss=None, **arguments):
    """Return a term's value in a step that changes nothing."""
    distiller = kd.Distiller(student, teacher, terms=[term])
    distiller.compile(keras.optimizers.SGD(0.0), loss)
    history = distiller.fit(x, y, batch_size=4, verbose=0, **arguments).history
    return history[term.name][0]


def hint(*names, **arguments):
    return kd.Term(kd.losses.Hint(), *names, adapter=None, **arguments)


def gaps(student, teacher, name, x):
    """Return the hint's value of each token."""
    difference = layer(student, name, x) - layer(teacher, name, x)
    return (difference**2).mean(-1) / 2


def cross_entropy(**arguments):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **arguments)


@pytest.mark.parametrize("length", [None, 6])
def test_the_padding_mask_of_a_language_model(length):
    """It masks sequences, also where the sizes are declared."""
    student, teacher = language_model(4, 0, length), language_model(4, 1, length)
    x = {"token_ids": IDS, "padding_mask": MASK}
    expected = gaps(student, teacher, "block", x)[MASK > 0].mean()
    assert part(student, teacher, hint("block", "block"), x) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("name, mask", [("encoder", MASK), ("decoder", OTHER)])
def test_encoder_and_decoder_have_their_own(name, mask):
    """Also of one length; the decoder's weights do not weigh the encoder's tokens."""
    student, teacher = translator(4), translator(4, 1)
    labels, weights = RNG.integers(0, 7, (4, 6)), RNG.random((4, 6)).astype("float32")
    each = gaps(student, teacher, name, both_sides())
    if name == "decoder":
        each = each * weights
    arguments = {"loss": cross_entropy(), "sample_weight": weights}
    got = part(student, teacher, hint(name, name), both_sides(), labels, **arguments)
    assert got == pytest.approx(each[mask > 0].mean(), rel=1e-4)


@keras.saving.register_keras_serializable(package="tests")
def large_ids(inputs):
    return inputs["token_ids"] > 9


CHOICES = {
    "none": (None, np.ones_like(MASK)),
    "key": ("padding_mask", MASK),
    "function": (large_ids, IDS > 9),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_term_names_another_mask(choice):
    mask, valid = CHOICES[choice]
    student, teacher = language_model(4), language_model(4, 1)
    inputs = {"token_ids": IDS, "padding_mask": MASK}
    expected = gaps(student, teacher, "block", inputs)[np.array(valid) > 0].mean()
    term = kd.Term.from_config(hint("block", "block", mask=mask).get_config()).copy()
    assert part(student, teacher, term, inputs) == pytest.approx(expected, rel=1e-4)


def test_a_mask_may_be_a_part_of_the_batch_that_no_model_takes():
    models = [language_model(4, seed, listed=True) for seed in (0, 1)]
    student, teacher = models
    expected = gaps(student, teacher, "block", [MASK, IDS])[OTHER > 0].mean()
    inputs = {"token_ids": IDS, "padding_mask": MASK}
    parts = ["padding_mask", "token_ids"]
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[hint("block", "block", mask="other")],
        student_inputs=parts,
        teacher_inputs=parts,
    )
    distiller.compile(keras.optimizers.SGD(0.0))
    history = distiller.fit({**inputs, "other": OTHER}, verbose=0).history
    assert history["hint"][0] == pytest.approx(expected, rel=1e-4)


def test_what_is_no_mask_is_refused():
    with pytest.raises(TypeError, match=r"mask of term 'hint' must be 'auto', None"):
        hint("block", "block", mask=0.5)


def test_ignored_tokens_are_left_out():
    """Of soft targets and of losses that take labels."""
    student, teacher = language_model(4), language_model(4, 1)
    x = {"token_ids": IDS, "padding_mask": np.ones_like(MASK)}
    labels = np.where(OTHER > 0, RNG.integers(0, 7, OTHER.shape), -100)
    z_s, z_t = (layer(model, "head", x) for model in (student, teacher))
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (z_t, z_s))
    each = (p * np.log(p / q)).sum(-1)
    loss = cross_entropy(ignore_class=-100)
    term = kd.Term(kd.losses.SoftTarget(1.0), name="soft")
    got = part(student, teacher, term, x, labels, loss)
    assert got == pytest.approx(each[OTHER > 0].mean(), rel=1e-4)
    term = kd.Term(kd.losses.DecoupledTarget(1.0), name="decoupled")
    got = part(student, teacher, term, x, labels, loss)
    alone = kd.losses.DecoupledTarget(1.0, reduction=None)
    valid = OTHER > 0
    each = alone(z_t[valid], z_s[valid], labels=labels[valid])
    assert got == pytest.approx(float(np.mean(ops.convert_to_numpy(each))), rel=1e-4)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_samples_of_ignored_labels_are_left_out(reduction):
    def net(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((5,))
        x = layers.Dense(4, name="hidden")(inputs)
        return keras.Model(inputs, layers.Dense(3, name="head")(x), name=f"net{seed}")

    student, teacher = net(0), net(1)
    x = RNG.normal(size=(4, 5)).astype("float32")
    labels = np.array([0, -1, 2, -1])
    each = gaps(student, teacher, "hidden", x)[labels >= 0]
    expected = each.mean() if reduction == "sum_over_batch_size" else each.sum()
    term = kd.Term(
        kd.losses.Hint(reduction=reduction), "hidden", "hidden", adapter=None
    )
    got = part(student, teacher, term, x, labels, cross_entropy(ignore_class=-1))
    assert got == pytest.approx(expected, rel=1e-4)


def test_lengths_are_found_from_shapes():
    """A batch of other sizes shows what varies; pooled vectors have no length."""
    specs = {
        "a": keras.KerasTensor((None, 8), "int32"),
        "b_ids": keras.KerasTensor((None, 6), "int32"),
        "b_padding_mask": keras.KerasTensor((None, 6), "int32"),
        "padding_mask": keras.KerasTensor((None, 8), "int32"),
    }

    def shapes_at(specs):
        a, b = specs["a"].shape[1], specs["b_ids"].shape[1]
        return {
            "a": [None, a, 3],
            "b": [None, b, 3],
            "scores": [None, 2, a, b],
            "v": [3],
        }

    found = lengths_of(shapes_at, specs)
    assert {
        name: [m.position for m in masks] for name, masks in found.masks.items()
    } == {"a": [3], "b": [2]}
    assert found.are_apart("a", "b") and not found.are_apart("a", "v")
    assert found.shapes == shapes_at(specs)


def test_a_model_of_one_length_takes_masks_of_that_length():
    specs = {
        "encoder_padding_mask": keras.KerasTensor((None, 6), "int32"),
        "decoder_padding_mask": keras.KerasTensor((None, 6), "int32"),
    }

    def shapes_at(specs):
        if any(x.shape[1] != 6 for x in specs.values()):
            raise RuntimeError("another length")
        return {"x": [None, 6, 3]}

    assert len(lengths_of(shapes_at, specs).masks["x"]) == 2
