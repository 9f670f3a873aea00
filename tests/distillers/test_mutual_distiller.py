"""Mutual learning against its closed form, and what users ask of a distiller."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import linear, points, weights
from tests.nets import conv_pair

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATE = 0.3


def peers(count=2):
    keras.utils.set_random_seed(3)
    return [linear(f"peer{i}") for i in range(count)]


def fit(distiller, data, epochs=1, **compiled):
    distiller.compile(keras.optimizers.SGD(RATE), CROSS_ENTROPY, **compiled)
    return distiller.fit(
        *data, batch_size=len(data[0]), epochs=epochs, shuffle=False, verbose=0
    )


def step_by_hand(nets, x, y, known=None, label_weight=1.0):
    """Give each peer's weights after a step, `known` being what peers hear of others."""
    everyone = [softmax(x @ w + b) for w, b in nets]
    known = everyone if known is None else known
    moved = []
    for i, (w, b) in enumerate(nets):
        others = [p for j, p in enumerate(known) if j != i]
        slope = label_weight * (everyone[i] - np.eye(3)[y])
        slope += sum(everyone[i] - p for p in others) / len(others)
        slope /= len(x)
        moved.append((w - RATE * x.T @ slope, b - RATE * slope.sum(0)))
    return moved


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "how", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str
)
def test_steps_are_those_of_the_formula(count, how):
    nets, (x, y) = peers(count), points()
    expected = [weights(net) for net in nets]
    fit(kd.MutualDistiller(nets), (x, y), epochs=2, **how)
    for _ in range(2):
        expected = step_by_hand(expected, x, y)
    for net, pair in zip(nets, expected, strict=True):
        for found, value in zip(weights(net), pair, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-6)


def test_copies_are_renewed_every_so_many_steps():
    nets, (x, y) = peers(), points()
    expected = [weights(net) for net in nets]
    fit(kd.MutualDistiller(nets, refresh=3), (x, y), epochs=5)
    for step in range(5):
        if step % 3 == 0:
            known = [softmax(x @ w + b) for w, b in expected]
        expected = step_by_hand(expected, x, y, known)
    for net, pair in zip(nets, expected, strict=True):
        for found, value in zip(weights(net), pair, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-6)


def test_two_replicas_are_one_on_the_global_batch(two_replicas):
    def run():
        nets = peers()
        fit(kd.MutualDistiller(nets), points(), epochs=2)
        return [w for net in nets for w in weights(net)]

    one = run()
    with two_replicas.scope():
        two = run()
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_each_peer_runs_once_a_step():
    calls = []

    class Counted(keras.layers.Dense):
        def call(self, inputs):
            calls.append(self.name)
            return super().call(inputs)

    def net(name):
        x = keras.Input((4,))
        return keras.Model(x, Counted(3, name=f"of_{name}")(x), name=name)

    distiller = kd.MutualDistiller([net("a"), net("b"), net("c")])
    distiller.compile("sgd", CROSS_ENTROPY, run_eagerly=True)
    x, y = points(8)
    # The first call builds.
    distiller.train_on_batch(x, y)
    calls.clear()
    distiller.train_on_batch(x, y)
    assert sorted(calls) == ["of_a", "of_b", "of_c"]


def test_layers_are_matched_in_pairs_with_adapters_of_their_own(images):
    small, large = conv_pair()
    hint = kd.Term(kd.losses.Hint(), "stack2", "stack2", weight=1.0)
    soft = kd.Term(kd.losses.SoftTarget(1.0))
    distiller = kd.MutualDistiller([small, large], [soft, hint])
    before = len(small.trainable_weights) + len(large.trainable_weights)
    # A convolution's kernel and bias each way.
    assert len(distiller.trainable_weights) == before + 4
    history = fit(distiller, images, epochs=12, metrics=["accuracy"]).history
    names = {"loss", "student_hint_from_teacher", "teacher_hint_from_student"}
    names |= {
        "student_accuracy",
        "teacher_label_loss",
        "student_soft_target_from_teacher",
    }
    assert names <= set(history)
    hints = history["student_hint_from_teacher"]
    assert hints[-1] < 0.7 * hints[0]


def test_peers_come_to_agree():
    x, y = points(60)
    nets = peers()
    distance = lambda: np.abs(  # noqa: E731
        softmax(nets[0].predict(x, verbose=0)) - softmax(nets[1].predict(x, verbose=0))
    ).mean()
    before = distance()
    fit(kd.MutualDistiller(nets, label_weight=0.0), (x, y), epochs=60)
    assert distance() < 0.2 * before


def test_evaluation_is_each_peers_own():
    nets, (x, y) = peers(), points(30)
    distiller = kd.MutualDistiller(nets)
    fit(distiller, (x, y), metrics=["accuracy"])
    found = distiller.evaluate(x, y, return_dict=True, verbose=0)
    for net in nets:
        right = (net.predict(x, verbose=0).argmax(-1) == y).mean()
        assert found[f"{net.name}_accuracy"] == pytest.approx(right, abs=1e-6)
    _, second = distiller.predict(x, verbose=0)
    np.testing.assert_array_equal(second, nets[1].predict(x, verbose=0))


@pytest.mark.parametrize("refresh", [None, 2])
def test_saved_and_loaded_it_goes_on(tmp_path, refresh):
    data = points()
    distiller = kd.MutualDistiller(peers(), refresh=refresh)
    fit(distiller, data, epochs=3, metrics=["accuracy"])
    distiller.save(tmp_path / "mutual.keras")
    loaded = keras.saving.load_model(tmp_path / "mutual.keras")
    for model in (distiller, loaded):
        model.fit(*data, batch_size=12, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(distiller.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.long
def test_stopped_it_goes_on_as_one_that_was_not(tmp_path):
    data = points()

    def run(*callbacks):
        nets = peers()
        distiller = kd.MutualDistiller(nets, refresh=2)
        distiller.compile(keras.optimizers.Adam(0.05), CROSS_ENTROPY)
        distiller.fit(
            *data, epochs=5, shuffle=False, verbose=0, callbacks=list(callbacks)
        )
        return [w for net in nets for w in weights(net)]

    expected = run()
    backup = lambda: keras.callbacks.BackupAndRestore(tmp_path / "b")  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        run(backup(), Stop())
    for a, b in zip(run(backup()), expected, strict=True):
        np.testing.assert_array_equal(a, b)


BAD = {
    "one peer": (
        lambda: kd.MutualDistiller([linear("a")]),
        ["two or more peers", "SelfDis"],
    ),
    "one name twice": (
        lambda: kd.MutualDistiller([linear("a"), linear("a")]),
        ["different names", "'a'"],
    ),
    "other classes": (
        lambda: kd.MutualDistiller([linear("a"), linear("b", classes=4)]),
        ["class counts differ", "3 logits", "4"],
    ),
    "no refresh": (
        lambda: kd.MutualDistiller([linear("a"), linear("b")], refresh=0),
        ["refresh", "0"],
    ),
    "no layer": (
        lambda: kd.MutualDistiller(
            [linear("a"), linear("b")], [kd.Term(kd.losses.Hint(), "h", "h")]
        ),
        ["no layer 'h'"],
    ),
    "labels outside": (
        lambda: fit(
            kd.MutualDistiller([linear("a"), linear("b")]),
            (points()[0], points()[1] + 3),
        ),
        ["0..2"],
    ),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_is_refused_before_the_first_step(make, words):
    with pytest.raises(ValueError) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_a_peer_is_a_model():
    with pytest.raises(TypeError, match=r"keras\.Model"):
        kd.MutualDistiller([linear("a"), "b"])


def test_peers_of_other_classes_or_with_gradient_taps_are_refused():
    nets = [
        kd.models.mlp((4,), classes, units=(5,), name=f"p{classes}")
        for classes in (3, 4)
    ]
    hint = kd.Term(kd.losses.Hint(), "hidden1", "hidden1")
    with pytest.raises(ValueError, match=r"class counts differ: .*'p3': 3, 'p4': 4"):
        kd.MutualDistiller(nets, [hint])
    jacobian = kd.Term(
        kd.losses.Jacobian(),
        kd.Tap.input_gradient("first_class"),
        kd.Tap.input_gradient("first_class"),
    )
    with pytest.raises(ValueError, match="peers do not exchange"):
        kd.MutualDistiller(peers(), [jacobian])


def test_a_trunk_in_common_gets_the_gradients_of_both():
    """Two heads without a bias on one linear trunk, by hand."""
    keras.utils.set_random_seed(4)
    trunk = keras.layers.Dense(4, use_bias=False)
    nets = []
    for name in ("a", "b"):
        inputs = keras.Input((5,))
        head = keras.layers.Dense(3, use_bias=False)
        nets.append(keras.Model(inputs, head(trunk(inputs)), name=name))
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    y = np.arange(6) % 3
    w, *heads = (
        np.float64(keras.ops.convert_to_numpy(layer.kernel))
        for layer in (trunk, nets[0].layers[-1], nets[1].layers[-1])
    )
    p, q = (softmax(x @ w @ head) for head in heads)
    slopes = [2 * p - q - np.eye(3)[y], 2 * q - p - np.eye(3)[y]]
    gradient = sum(
        x.T @ (slope / 6) @ head.T for slope, head in zip(slopes, heads, strict=True)
    )
    fit(kd.MutualDistiller(nets), (x, y))
    found = keras.ops.convert_to_numpy(trunk.kernel)
    np.testing.assert_allclose(found, w - RATE * gradient, atol=1e-6)
