"""Vision transformers: their numbers, and a student with a distillation token."""

import math

import keras
import numpy as np
import pytest
from keras import ops

import keras_distill as kd
from tests.formulas import log_softmax, softmax

SMALL = {"width": 16, "depth": 2, "heads": 2}
HARD = kd.losses.SoftTarget(1.0, target=kd.targets.HardLabel())
LABELS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
numbers = ops.convert_to_numpy


def parameters(patches, patch, width, depth, tokens, classes):
    attention, mlp = 4 * width * (width + 1), 8 * width * width + 5 * width
    total = 3 * patch * patch * width + width
    total += (patches + 2 * tokens) * width
    total += depth * (attention + mlp + 4 * width) + 2 * width
    return total + tokens * (width + 1) * classes


def test_parameters():
    """The tables have 5.7 million for DeiT-Ti, and 5.9 with the distillation token."""
    arguments = {"width": 96, "depth": 3, "patch": 8}
    for tokens, make in enumerate((kd.models.vit, kd.models.deit), start=1):
        expected = parameters(16, 8, 96, 3, tokens, 10)
        assert make((32, 32, 3), 10, **arguments).count_params() == expected
        tiny = parameters(196, 16, 192, 12, tokens, 1000)
        assert tiny == (5_717_416, 5_910_800)[tokens - 1]


def test_blocks_equal_numpy():
    """One block by hand, in float64, from the weights."""
    model = kd.models.vit((4, 4, 1), 3, patch=2, width=6, depth=1, heads=2)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1))
    w = {w.path: np.float64(numbers(w)) for w in model.weights}

    def normal(f, name):
        f = (f - f.mean(-1, keepdims=True)) / np.sqrt(f.var(-1, keepdims=True) + 1e-6)
        return f * w[f"{name}/gamma"] + w[f"{name}/beta"]

    def dense(f, name):
        return f @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    patches = [x[:, i : i + 2, j : j + 2] for i in (0, 2) for j in (0, 2)]
    tokens = np.stack(
        [
            np.einsum("bhwc,hwcd->bd", p, w["patches/kernel"]) + w["patches/bias"]
            for p in patches
        ],
        1,
    )
    first = np.repeat(w["tokens/tokens"][None], 2, 0)
    f = np.concatenate([first, tokens], 1) + w["tokens/positions"]
    attention, n = "block1_attention", normal(f, "block1_norm1")
    q, k, v = (
        np.einsum("bld,dhk->blhk", n, w[f"{attention}/{part}/kernel"])
        + w[f"{attention}/{part}/bias"]
        for part in ("query", "key", "value")
    )
    scores = softmax(np.einsum("blhk,bmhk->bhlm", q, k) / np.sqrt(3))
    mixed = np.einsum("bhlm,bmhk->blhk", scores, v)
    out = f"{attention}/attention_output"
    f = f + np.einsum("blhk,hkd->bld", mixed, w[f"{out}/kernel"]) + w[f"{out}/bias"]
    hidden = dense(normal(f, "block1_norm2"), "block1_mlp1")
    erf = np.vectorize(math.erf)
    gelu = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
    f = normal(f + dense(gelu, "block1_mlp2"), "norm")
    expected = dense(f[:, 0], "logits")
    found = numbers(model(x.astype("float32")))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def heads_of(model, x):
    """Return the logits of both heads."""
    outputs = [model.get_layer(f"{of}_head").output for of in ("class", "distillation")]
    return [np.float64(numbers(z)) for z in keras.Model(model.inputs, outputs)(x)]


def test_training_is_of_the_class_head_and_inference_of_both():
    model = kd.models.deit((8, 8, 1), 4, **SMALL)
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
    a, b = heads_of(model, x)
    assert np.abs(a - b).max() > 0.1
    np.testing.assert_allclose(numbers(model(x, training=True)), a, atol=1e-5)
    expected = np.log((softmax(a) + softmax(b)) / 2)
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1.0, rtol=1e-5)


def bars(count, seed=0):
    """Return images with a bar that lies or stands, and which it does."""
    rng = np.random.default_rng(seed)
    images = 0.2 * rng.normal(size=(count, 8, 8, 1)).astype("float32")
    labels = rng.integers(0, 2, count)
    for image, label, i in zip(images, labels, rng.integers(0, 8, count), strict=True):
        image[(slice(None), i) if label else i] += 1.0
    return images, labels


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    model = kd.models.conv_net((8, 8, 1), 2, filters=(8,))
    model.compile(keras.optimizers.Adam(0.03), LABELS)
    model.fit(*bars(512), epochs=4, verbose=0)
    return model


def distiller_of(teacher, label_weight=0.5):
    """Return a distiller of a new student, compiled."""
    keras.utils.set_random_seed(1)
    student = kd.models.deit((8, 8, 1), 2, **SMALL)
    term = kd.Term(HARD, student="distillation_head", weight=0.5, name="hard")
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=label_weight)
    labels = {"loss": LABELS, "metrics": ["accuracy"]} if label_weight else {}
    distiller.compile(keras.optimizers.Adam(0.005), jit_compile=False, **labels)
    return distiller


def test_the_loss_is_half_of_each_cross_entropy(teacher):
    images, labels = bars(32, seed=1)
    labels = 1 - labels
    distiller = distiller_of(teacher)
    a, b = (log_softmax(z) for z in heads_of(distiller.student, images))
    hard = teacher.predict(images, verbose=0).argmax(-1)
    of_labels, of_teacher = (
        -z[np.arange(32), y].mean() for z, y in ((a, labels), (b, hard))
    )
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    expected = 0.5 * of_labels + 0.5 * of_teacher
    np.testing.assert_allclose(float(logs["loss"]), expected, rtol=1e-4)


@pytest.mark.long
def test_both_heads_learn_and_the_prediction_is_one(teacher, tmp_path):
    distiller = distiller_of(teacher)
    images, labels = bars(512)
    distiller.fit(images, labels, epochs=8, verbose=0)
    unseen, truth = bars(128, seed=2)
    for logits in (*heads_of(distiller.student, unseen), distiller.predict(unseen)):
        assert logits.shape == (128, 2)
        assert (logits.argmax(-1) == truth).mean() > 0.9
    found = distiller.predict(unseen, verbose=0)
    right = distiller.evaluate(unseen, truth, return_dict=True, verbose=0)["accuracy"]
    assert float(right) == pytest.approx((found.argmax(-1) == truth).mean(), abs=1e-6)
    distiller.student.save(tmp_path / "student.keras")
    again = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(again.predict(unseen, verbose=0), found, atol=1e-6)
    distiller.save(tmp_path / "distiller.keras")
    whole = keras.saving.load_model(tmp_path / "distiller.keras")
    np.testing.assert_allclose(whole.predict(unseen, verbose=0), found, atol=1e-6)


def test_without_labels_the_class_head_stays(teacher):
    """The term reaches the distillation head alone."""
    distiller = distiller_of(teacher, label_weight=0.0)
    heads = [
        distiller.student.get_layer(f"{x}_head") for x in ("class", "distillation")
    ]
    before = [numbers(head.kernel) for head in heads]
    distiller.fit(bars(64)[0], verbose=0)
    moved = [
        np.abs(numbers(h.kernel) - x).max() for h, x in zip(heads, before, strict=True)
    ]
    assert moved[0] == 0.0 and moved[1] > 1e-3


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch exports to other formats"
)
def test_an_export_returns_the_prediction_of_both(tmp_path):
    import tensorflow as tf

    model = kd.models.deit((8, 8, 1), 4, **SMALL)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(served.serve(x), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.long
def test_taps_pair_with_a_convolutional_teacher(teacher):
    student = kd.models.vit((8, 8, 1), 2, **SMALL)
    assert "block2" in str(kd.suggest_taps(student, kd.models.vit((8, 8, 1), 2)))
    scores = kd.Tap("block1_attention", side="scores")
    terms = [
        kd.Term(kd.losses.Hint(), scores, scores, name="scores"),
        kd.Term(kd.losses.AttentionMap(), "block2", "block1", name="blocks"),
    ]
    other = kd.models.vit((8, 8, 1), 2, **SMALL)
    distiller = kd.Distiller(student, other, terms=terms, label_weight=0.0)
    distiller.compile("sgd", jit_compile=False)
    distiller.fit(bars(32)[0], verbose=0)
    term = kd.Term(
        kd.losses.AttentionMap(),
        "block2",
        "stack1",
        adapter=kd.adapters.TokensToMap((2, 2)),
        teacher_adapter=kd.adapters.AveragePool((2, 2)),
    )
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.0)
    distiller.compile("sgd", jit_compile=False)
    distiller.fit(bars(32)[0], verbose=0)


@pytest.mark.parametrize("make", [kd.models.vit, kd.models.deit])
def test_bad_arguments(make):
    with pytest.raises(ValueError, match="a patch of 3 for images"):
        make((8, 8, 1), 2, patch=3)
    with pytest.raises(ValueError, match="a width of 16 for 3 heads"):
        make((8, 8, 1), 2, width=16)
