"""Chains of models: who learns from whom, seeds, resuming, choice of assistants."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.schemes.seeds import set_seed
from tests.formulas import softmax
from tests.linear import linear, points, weights

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COMPILED = {"optimizer": keras.optimizers.SGD(0.3), "loss": CROSS_ENTROPY}


def make(index):
    return linear(f"generation{index}")


def chain(generations=3, make=make, **arguments):
    defaults = {"batch_size": 12, "shuffle": False, "verbose": 0, "compiled": COMPILED}
    return kd.fit_generations(make, generations, *points(), **defaults | arguments)


def drawn(seed):
    keras.utils.set_random_seed(seed)
    return weights(linear("fresh"))


@pytest.mark.parametrize("label_weight", [0.0, 1.0])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_each_model_learns_from_the_previous_one(label_weight, with_teacher):
    x, y = points()
    labels, first = np.eye(3)[y], None
    if with_teacher:
        keras.utils.set_random_seed(77)
        first = linear("teacher")
    generations = chain(teacher=first, label_weight=label_weight, seed=5)
    previous = weights(first) if with_teacher else None
    for i, (model, history) in enumerate(generations):
        w, b = drawn(5 + i)
        q = softmax(x @ w + b)
        gradient = label_weight * (q - labels) if previous else q - labels
        if previous:
            gradient = gradient + q - softmax(x @ previous[0] + previous[1])
        w, b = w - 0.3 * x.T @ gradient / 12, b - 0.3 * gradient.mean(0)
        np.testing.assert_allclose(weights(model)[0], w, atol=1e-6)
        np.testing.assert_allclose(weights(model)[1], b, atol=1e-6)
        assert ("soft_target" in history) == (previous is not None)
        previous = weights(model)
    assert type(generations[-1].model) is type(linear("a"))


@pytest.mark.parametrize(
    "loss",
    [
        kd.losses.ConfidenceWeightedLabel(),
        kd.losses.SoftTarget(1.0, target=kd.targets.Permuted()),
    ],
    ids=["CWTM", "DKPP"],
)
def test_born_again_without_dark_knowledge(loss):
    generations = chain(
        2, terms=[kd.Term(loss, weight=1.0)], label_weight=0.0, epochs=30
    )
    assert generations[1].history["loss"][-1] < generations[1].history["loss"][0]


@pytest.mark.long
def test_a_generation_approaches_the_previous_one():
    x, _ = points()
    first, second = chain(2, epochs=60, label_weight=0.0)

    def distance(model, other):
        predictions = (softmax(m.predict(x, verbose=0)) for m in (model, other))
        return np.abs(np.subtract(*predictions)).mean()

    untrained = linear("untrained")
    untrained.set_weights(drawn(1))
    assert distance(second.model, first.model) < 0.3 * distance(untrained, first.model)


class Stop(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        if "soft_target" in logs and epoch == 1:
            raise KeyboardInterrupt


def test_an_interrupted_chain_resumes(tmp_path):
    expected = chain(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        chain(epochs=3, backup=tmp_path, callbacks=[Stop()])
    names = {f.name for f in tmp_path.glob("*.json")}
    assert names == {"plan.json", "0.json", "1.json"}
    resumed = chain(epochs=3, backup=tmp_path)
    for a, b in zip(expected, resumed, strict=True):
        for one, other in zip(weights(a.model), weights(b.model), strict=True):
            np.testing.assert_array_equal(one, other)
        assert a.history == b.history
    assert chain(epochs=3, backup=tmp_path)[2].history == resumed[2].history
    with pytest.raises(ValueError, match="another scheme"):
        chain(epochs=3, backup=tmp_path, seed=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"generations": 0}, "generations must be an integer of 1 or more; got 0"),
        ({"epochs": 0}, "epochs must be an integer of 1 or more; got 0"),
        (
            {"make": lambda index: linear(f"g{index}", classes=3 + index)},
            "class counts differ",
        ),
        (
            {"make": lambda index: keras.Sequential([keras.layers.Dense(3)])},
            "not built",
        ),
        ({"compiled": {"optimizer": "adam"}}, "it learns from labels; got no loss"),
    ],
)
def test_invalid_arguments_raise_before_the_first_step(arguments, words):
    with pytest.raises(ValueError, match=words):
        chain(**arguments)


def test_assistants_make_the_steps_even():
    assert kd.choose_assistants([0.92, 0.91, 0.86, 0.83, 0.79]) == [2]
    assert kd.choose_assistants([0.9, 0.85, 0.8, 0.7, 0.6], 2) == [2, 3]
    assert kd.choose_assistants([0.9, 0.89, 0.61, 0.6]) == [1]
    with pytest.raises(
        ValueError, match=r"Cannot choose 2 assistant\(s\) from 1 candidate"
    ):
        kd.choose_assistants([0.9, 0.8, 0.7], 2)


def test_invalid_losses_and_labels_raise_before_training():
    models = []

    def keep(index):
        models.append(make(index))
        return models[-1]

    compiled = {"loss": "sparse_categorical_crossentropy"}
    with pytest.raises(ValueError, match="takes probabilities"):
        chain(make=keep, compiled=compiled, seed=3)
    for weight, initial in zip(weights(models[0]), drawn(3), strict=True):
        np.testing.assert_array_equal(weight, initial)
    x, y = points()
    with pytest.raises(ValueError, match="Labels must lie in"):
        kd.fit_generations(make, 2, x, y + 9, compiled=COMPILED, verbose=0)


def test_generations_without_labels_can_be_validated():
    validated = chain(2, label_weight=0.0, validation_data=points())
    plain = chain(2, label_weight=0.0)
    assert "val_loss" in validated[1].history and "val_loss" not in plain[1].history
    for a, b in zip(weights(validated[1].model), weights(plain[1].model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


class Texts(keras.Model):
    """Classifies texts behind a tokenizer of sentence pieces, as a keras_hub task does."""

    def __init__(self, tokenizer):
        super().__init__()
        self.preprocessor = keras.Sequential([tokenizer])
        self.embedding = keras.layers.Embedding(60, 4)
        self.head = keras.layers.Dense(2)

    def preprocess_samples(self, x, y=None, sample_weight=None):
        tokens = self.preprocessor.layers[0](x)
        return keras.utils.pack_x_y_sample_weight(tokens, y, sample_weight)

    def call(self, tokens):
        return self.head(keras.ops.mean(self.embedding(tokens), axis=1))


def test_tokenizers_outlive_the_seeds():
    """TensorFlow forgets what they hold as its seed is set."""
    pytest.importorskip("sentencepiece")
    hub = pytest.importorskip("keras_hub").models
    import tensorflow as tf

    from tests.hub_tasks import sentence_pieces

    texts = tf.constant(["a b", "c d", "b a", "d"])
    models = []
    for _ in range(2):
        tokenizer = hub.T5Tokenizer(sentence_pieces(), sequence_length=4)
        models.append(Texts(tokenizer))
    set_seed(3, models)
    for model in models:
        mapped = tf.data.Dataset.from_tensors(texts).map(model.preprocess_samples)
        assert next(iter(mapped)).shape == (4, 4)
    set_seed(3, [*models, linear("plain")])
    np.testing.assert_array_equal(weights(linear("fresh"))[0], drawn(3)[0])
