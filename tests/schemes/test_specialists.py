"""Specialists: groups of classes, training, and the combined prediction."""

import json

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.schemes.specialists.specialist_training import SpecialistTraining
from tests.formulas import softmax

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COMPILED = {"optimizer": keras.optimizers.Adam(0.01), "loss": CROSS_ENTROPY}
GROUPS = [[0, 1], [3, 4, 2]]


def net(classes=6, name="generalist"):
    keras.utils.set_random_seed(4)
    x = keras.Input((5,))
    y = keras.layers.Dense(8, "relu", name="hidden")(x)
    return keras.Model(x, keras.layers.Dense(classes, name="logits")(y), name=name)


def samples(count=240):
    """Draw points around six centers, which lie in pairs near each other."""
    rng = np.random.default_rng(1)
    centers = np.repeat(rng.normal(size=(3, 5)) * 3.0, 2, axis=0)
    centers[1::2] += 0.8
    labels = rng.integers(0, 6, count).astype("int32")
    x = centers[labels] + rng.normal(size=(count, 5)) * 0.7
    return kd.data.Samples(x.astype("float32"), labels)


def generalist():
    model, data = net(), samples()
    model.compile(keras.optimizers.Adam(0.02), CROSS_ENTROPY)
    model.fit(data.images, data.labels, epochs=15, verbose=0)
    return model


def specialists(model, **arguments):
    defaults = {"compiled": COMPILED, "epochs": 8, "batch_size": 32, "verbose": 0}
    return kd.fit_specialists(model, GROUPS, samples(), **defaults | arguments)


def assert_same_weights(models, others):
    for one, other in zip(models, others, strict=True):
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_classes_that_are_confused_are_grouped():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 3000)
    logits = 2.0 * np.eye(6)[labels] + 4.0 * np.eye(6)[labels // 2 * 2]
    logits += 4.0 * np.eye(6)[labels // 2 * 2 + 1] + rng.normal(size=(3000, 6))
    groups = kd.cluster_classes(softmax(logits), 3)
    assert sorted(map(tuple, groups)) == [(0, 1), (2, 3), (4, 5)]
    with pytest.raises(ValueError, match=r"must be 2 to 5 for 6 classes; got 6"):
        kd.cluster_classes(softmax(logits), 6)


def test_a_specialist_begins_as_the_generalist():
    """Before training, it predicts as the generalist does, with the others merged."""
    model, data = net(), samples()
    still = {**COMPILED, "optimizer": keras.optimizers.SGD(0.0)}
    (specialist,) = kd.fit_specialists(model, [[2, 0]], data, compiled=still, verbose=0)
    z = model.predict(data.images, verbose=0)
    logits = specialist.predict(data.images, verbose=0)
    np.testing.assert_allclose(logits[:, :2], z[:, [2, 0]], atol=1e-5)
    rest = z[:, [1, 3, 4, 5]].mean(1) + np.log(4)
    in_group = np.isin(data.labels, [0, 2]).sum()
    # It trained on as many samples of other classes: the odds of the dustbin were 1.
    np.testing.assert_allclose(
        logits[:, 2], rest + np.log((len(data) - in_group) / in_group), atol=1e-4
    )


def test_its_last_layer_is_as_the_generalists():
    inputs = keras.Input((5,))
    head = keras.layers.Dense(6, dtype="float64", kernel_regularizer="l2")
    model = keras.Model(inputs, head(inputs))
    model.trainable = False
    specialist = SpecialistTraining(model, [0, 1], samples(), 9, 0, {}).model
    last = specialist.layers[-1]
    assert last.compute_dtype == "float64" and last.kernel_regularizer is not None
    # A generalist that was frozen as a teacher is still trained on.
    assert len(specialist.trainable_weights) == len(model.weights)
    assert not model.trainable_weights


@pytest.mark.long
def test_it_learns_its_classes_and_the_dustbin():
    model, data = generalist(), samples()
    before = [np.array(w) for w in model.get_weights()]
    for specialist, group in zip(specialists(model), GROUPS, strict=True):
        logits = specialist.predict(data.images, verbose=0)
        outputs = np.full(6, len(group))
        outputs[group] = range(len(group))
        expected = outputs[data.labels]
        assert (logits.argmax(-1) == expected).mean() > 0.8
        # After the correction, the dustbin is predicted as often as it occurs.
        fraction = softmax(logits)[:, -1].mean()
        assert fraction == pytest.approx((expected == len(group)).mean(), abs=0.08)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_separate_processes_give_the_same_weights():
    model = generalist()
    assert_same_weights(specialists(model), specialists(model, processes=2))


class Stop(keras.callbacks.Callback):
    """Stops in the second training."""

    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.long
def test_an_interrupted_training_resumes(tmp_path, monkeypatch):
    model = generalist()
    expected = specialists(model, epochs=3)
    fit = SpecialistTraining._fit

    def stopped(self, trainer, callbacks):
        return fit(self, trainer, [*callbacks, *[Stop()] * (len(self.group) == 3)])

    with monkeypatch.context() as patch:
        patch.setattr(SpecialistTraining, "_fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            specialists(model, epochs=3, backup=tmp_path)
    done = [json.loads((tmp_path / x / "0.json").read_text()) for x in "01"]
    assert [len(epochs) for epochs in done] == [3, 1]
    assert_same_weights(expected, specialists(model, epochs=3, backup=tmp_path))


def minimize(p, targets):
    """Minimize the sum of divergences by gradient descent in float64."""
    z = np.log(p)
    for _ in range(4000):
        q = softmax(z)
        gradient = q - p
        for group, target in targets:
            rest = np.setdiff1d(np.arange(len(p)), group)
            for output, k in enumerate(group):
                gradient[k] += q[k] - target[output]
            gradient[rest] += q[rest] - target[-1] * q[rest] / q[rest].sum()
        z -= 0.3 * gradient
    return softmax(z)


def test_the_prediction_minimizes_the_divergences(tmp_path):
    model = net()
    members = [net(3, "a"), net(4, "b")]
    ensemble = kd.SpecialistEnsemble(model, members, GROUPS, steps=2000, nearest=2)
    x = samples(6).images
    logits = ensemble.predict(x, verbose=0)
    p, targets = softmax(model.predict(x, verbose=0)), []
    for member, group in zip(members, GROUPS, strict=True):
        targets.append((group, softmax(member.predict(x, verbose=0))))
    for i in range(len(x)):
        top = np.argsort(-p[i])[:2]
        active = [(g, t[i]) for g, t in targets if set(g) & set(top)]
        expected = minimize(p[i], active)
        np.testing.assert_allclose(softmax(logits[i]), expected, atol=2e-4)
    ensemble.save(tmp_path / "e.keras")
    loaded = keras.saving.load_model(tmp_path / "e.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), logits)


def test_a_class_of_no_group_is_left_to_the_generalist():
    model = net()
    ensemble = kd.SpecialistEnsemble(model, [net(3, "a")], [[0, 1]], steps=50)
    x = samples(40).images
    z = model.predict(x, verbose=0)
    alone = ~np.isin(z.argmax(-1), [0, 1])
    combined = softmax(ensemble.predict(x, verbose=0))
    assert 0 < alone.sum() < 40
    np.testing.assert_allclose(combined[alone], softmax(z)[alone], atol=1e-5)
    assert np.abs(combined[~alone] - softmax(z)[~alone]).max() > 1e-3


BAD = {
    "no groups": ([], ["no groups"]),
    "all classes": ([[0, 1, 2, 3, 4, 5]], ["not all"]),
    "one twice": ([[0, 0]], ["each once"]),
    "unknown": ([[0, 9]], ["0..5", "[0, 9]"]),
    "empty": ([[]], ["got []"]),
}


@pytest.mark.parametrize("groups, words", BAD.values(), ids=BAD)
def test_invalid_groups_raise(groups, words):
    for make in (
        lambda: kd.fit_specialists(net(), groups, samples(), compiled=COMPILED),
        lambda: kd.SpecialistEnsemble(net(), [], groups),
    ):
        with pytest.raises(ValueError) as error:
            make()
        for word in words:
            assert word in str(error.value)


def test_other_invalid_input_raises():
    with pytest.raises(ValueError, match=r"classes without samples: \[5\]"):
        kd.fit_specialists(
            net(), [[4, 5]], samples().without([5]), compiled=COMPILED, verbose=0
        )
    with pytest.raises(ValueError, match=r"outputs of \[3\], got outputs of \[4\]"):
        kd.SpecialistEnsemble(net(), [net(4, "a")], [[0, 1]])
    x = keras.Input((5,))
    soft = keras.Model(x, keras.layers.Dense(6, "softmax")(x))
    with pytest.raises(TypeError, match="Dense without activation"):
        kd.fit_specialists(soft, GROUPS, samples(), compiled=COMPILED)


def test_merged_logits_of_tokens_keep_their_mask():
    tokens = np.array([[3, 5, 0], [2, 0, 0]])
    logits = keras.layers.Embedding(9, 5, mask_zero=True)(tokens)
    mask = kd.taps.mask_of(kd.Merged([1, 3])(logits))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(mask), tokens > 0)
