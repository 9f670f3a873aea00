"""Ensembles that predict, and their members as teachers of single terms."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import linear, points, weights

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def members():
    keras.utils.set_random_seed(1)
    return [linear(f"member{i}") for i in range(3)]


def averaged(logits, average, fractions, temperature=1.0):
    if average == "geometric":
        return softmax(
            sum(w * z for w, z in zip(fractions, logits, strict=True)), temperature
        )
    return sum(
        w * softmax(z, temperature) for w, z in zip(fractions, logits, strict=True)
    )


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_the_prediction_is_the_average(average, tmp_path):
    nets, (x, _) = members(), points()
    ensemble = kd.Ensemble(nets, average, weights=[1.0, 1.0, 2.0])
    logits = [net.predict(x, verbose=0) for net in nets]
    expected = averaged(logits, average, [0.25, 0.25, 0.5])
    found = ensemble.predict(x, verbose=0)
    np.testing.assert_allclose(softmax(found), expected, atol=1e-6)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), found)


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_padding_does_not_count_in_evaluations(average, tmp_path):
    def of_tokens(seed):
        tokens = keras.Input((None,), dtype="int32")
        features = keras.layers.Embedding(10, 4, mask_zero=True)(tokens)
        model = keras.Model(tokens, keras.layers.Dense(3)(features))
        rng = np.random.default_rng(seed)
        model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
        return model

    x = np.array([[1, 2, 0, 0, 0, 0], [3, 1, 2, 5, 0, 0]])
    y = np.random.default_rng(2).integers(0, 3, x.shape)
    nets = [of_tokens(0), of_tokens(1)]
    logits = [net.predict(x, verbose=0) for net in nets]
    p = averaged(logits, average, [0.5, 0.5])
    values = -np.log(np.take_along_axis(p, y[..., None], -1)[..., 0])
    ensemble = kd.Ensemble(nets, average)
    ensemble.save(tmp_path / "ensemble.keras")
    for model in (ensemble, keras.saving.load_model(tmp_path / "ensemble.keras")):
        model.compile(loss=CROSS_ENTROPY)
        found = model.evaluate(x, y, verbose=0)
        np.testing.assert_allclose(found, values[x > 0].mean(), rtol=1e-5)


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_it_teaches_as_its_members_at_the_losss_temperature(average):
    nets, (x, y) = members(), points()
    ensemble = kd.Ensemble(nets, average)
    student = linear("student")
    w, b = weights(student)
    distiller = kd.Distiller(
        student, ensemble, terms=[kd.Term(kd.losses.SoftTarget(2.0), weight=1.0)]
    )
    distiller.compile(keras.optimizers.SGD(0.5))
    distiller.fit(x, y, batch_size=12, verbose=0)
    logits = [net.predict(x, verbose=0) for net in nets]
    target = averaged(logits, average, [1 / 3] * 3, 2.0)
    gradient = 2.0 * (softmax(x @ w + b, 2.0) - target) / len(x)
    np.testing.assert_allclose(weights(student)[0], w - 0.5 * x.T @ gradient, atol=1e-6)


def test_a_term_of_one_member_alone():
    """Two terms on two members are the update of both soft targets, by hand."""
    nets, (x, y) = members(), points()
    student = linear("student")
    w, b = weights(student)
    terms = [
        kd.Term(
            kd.losses.SoftTarget(t), teacher=f"{m}/logits", weight=v, name=f"of_{m}"
        )
        for m, t, v in ((0, 1.0, 0.3), (2, 4.0, 0.7))
    ]
    distiller = kd.Distiller(student, kd.EnsembleTeacher(nets), terms=terms)
    distiller.compile(keras.optimizers.SGD(0.5))
    distiller.fit(x, y, batch_size=12, verbose=0)
    gradient = 0.0
    for m, t, v in ((0, 1.0, 0.3), (2, 4.0, 0.7)):
        target = softmax(nets[m].predict(x, verbose=0), t)
        gradient += v * t * (softmax(x @ w + b, t) - target) / len(x)
    np.testing.assert_allclose(weights(student)[0], w - 0.5 * x.T @ gradient, atol=1e-6)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, "float64")))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_the_average_of_independent_labels(average, classes, tmp_path):
    nets = [linear(f"member{i}", classes=classes) for i in range(2)]
    x, w = 3 * points()[0], [0.25, 0.75]
    z = [net.predict(x, verbose=0).astype("float64") for net in nets]
    for temperature in (1.0, 4.0):
        teacher = kd.EnsembleTeacher(nets, average, weights=w)
        found = teacher.logits(list(map(np.float32, z)), temperature, "labels")
        if average == "arithmetic":
            expected = sum(
                a * sigmoid(b / temperature) for a, b in zip(w, z, strict=True)
            )
        else:
            yes, no = (
                np.prod(
                    [
                        sigmoid(s * b / temperature) ** a
                        for a, b in zip(w, z, strict=True)
                    ],
                    0,
                )
                for s in (1, -1)
            )
            expected = yes / (yes + no)
        np.testing.assert_allclose(sigmoid(found / temperature), expected, rtol=1e-5)
    ensemble = kd.Ensemble(nets, average, weights=w, predicts="labels")
    found = teacher.logits(list(map(np.float32, z)), 1.0, "labels")
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), found, rtol=1e-5)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    values = [model.predict(x, verbose=0) for model in (loaded, ensemble)]
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_each_of_several_outputs_is_averaged(average, kind, tmp_path):
    def several(seed, kind=kind):
        inputs, rng = keras.Input((4,)), np.random.default_rng(seed)
        outputs = [keras.layers.Dense(3, name=name)(inputs) for name in "ab"]
        outputs = outputs if kind is list else dict(zip("ab", outputs, strict=True))
        model = keras.Model(inputs, outputs)
        model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
        return model

    nets, x = [several(0), several(1)], points()[0]
    parts = [keras.tree.flatten(net.predict(x, verbose=0)) for net in nets]
    expected = [
        averaged(logits, average, [0.25, 0.75]) for logits in zip(*parts, strict=True)
    ]
    ensemble = kd.Ensemble(nets, average, weights=[1, 3])
    ensemble.save(tmp_path / "ensemble.keras")
    for model in (ensemble, keras.saving.load_model(tmp_path / "ensemble.keras")):
        found = model.predict(x, verbose=0)
        assert type(found) is kind
        for logits, p in zip(keras.tree.flatten(found), expected, strict=True):
            np.testing.assert_allclose(softmax(logits), p, atol=1e-6)
    other = several(2, dict if kind is list else list)
    with pytest.raises(ValueError, match=r"same outputs: .* shapes .*\(12, 3\)"):
        kd.Ensemble([nets[0], other])(x)


def test_labels_far_from_zero_are_finite():
    nets = [linear(f"member{i}", classes=1) for i in range(2)]
    z = [np.float32([[900.0], [-900.0]]), np.float32([[800.0], [-900.0]])]
    found = kd.EnsembleTeacher(nets).logits(z, 1.0, "labels")
    # Of p, 1 - p is the mean of exp(-900) and exp(-800): its logarithm is -800 - log 2.
    np.testing.assert_allclose(found, [[800 + np.log(2)], [-900]], rtol=1e-6)


class Distance(kd.losses.DistillationLoss):
    predicts = "values"

    def call(self, teacher, student):
        return keras.ops.sum(keras.ops.square(teacher - student), axis=-1)


@pytest.mark.parametrize("classes", [1, 3])
def test_the_mean_of_regressors_is_the_mean(classes):
    nets = [linear(f"member{i}", classes=classes) for i in range(2)]
    student, x = linear("student", classes=classes), points()[0]
    values = [net.predict(x, verbose=0).astype("float64") for net in nets]
    mean = 0.25 * values[0] + 0.75 * values[1]
    gap = ((mean - student.predict(x, verbose=0)) ** 2).sum(-1).mean()
    ensemble = kd.Ensemble(nets, weights=[1, 3], predicts="values")
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), mean, rtol=1e-5)
    for teacher in (kd.EnsembleTeacher(nets, weights=[1, 3]), ensemble):
        distiller = kd.Distiller(student, teacher, terms=[kd.Term(Distance())])
        distiller.compile(keras.optimizers.SGD(0.0))
        logs = distiller.fit(x, batch_size=12, verbose=0).history
        np.testing.assert_allclose(logs["distance"], [gap], rtol=1e-5)


@pytest.mark.parametrize("predicts", ["labels", "values"])
def test_the_default_term_is_that_of_the_members(predicts):
    nets = [linear(f"member{i}", classes=1) for i in range(2)]
    student, (x, y) = linear("student", classes=1), points()
    loss = {
        "labels": keras.losses.BinaryCrossentropy(from_logits=True),
        "values": "mse",
    }
    distiller = kd.Distiller(student, kd.EnsembleTeacher(nets, predicts=predicts))
    other = "values" if predicts == "labels" else "labels"
    with pytest.raises(ValueError, match=f"predict {predicts}, but .* as {other}"):
        distiller.compile(keras.optimizers.SGD(0.0), loss[other])
        distiller.fit(x, y[:, None] % 2, verbose=0)
    distiller = kd.Distiller(student, kd.EnsembleTeacher(nets, predicts=predicts))
    distiller.compile(keras.optimizers.SGD(0.0), loss[predicts])
    logs = distiller.fit(x, y[:, None] % 2, batch_size=12, verbose=0).history
    z = [m.predict(x, verbose=0).astype("float64") for m in (*nets, student)]
    if predicts == "values":
        found, gap = logs["output_regression"][0], (z[0] + z[1]) / 2 - z[2]
        expected = (gap**2).mean()
        assert found == pytest.approx(expected, rel=1e-4)
    else:
        p, q = (sigmoid(z[0] / 4) + sigmoid(z[1] / 4)) / 2, sigmoid(z[2] / 4)
        each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        found = logs["binary_soft_target"][0]
        assert found == pytest.approx(16 * each.mean(), rel=1e-4)


def test_what_members_predict_is_checked():
    nets = [linear(f"member{i}", classes=1) for i in range(2)]
    with pytest.raises(ValueError, match="'classes', 'labels' or 'values'; got 'logs'"):
        kd.EnsembleTeacher(nets, predicts="logs")
    with pytest.raises(ValueError, match="no geometric average"):
        kd.Ensemble(nets, "geometric", predicts="values")
    with pytest.raises(ValueError, match=r"one output .* predicts='labels'"):
        kd.Ensemble(nets)(points()[0])
    of_labels = kd.EnsembleTeacher(nets, predicts="labels")
    with pytest.raises(ValueError, match="'distance' reads their outputs as values"):
        kd.Distiller(
            linear("student", classes=1), of_labels, terms=[kd.Term(Distance())]
        )


def test_bad_members():
    with pytest.raises(ValueError, match="two or more different"):
        kd.Ensemble([linear("one")])
    with pytest.raises(ValueError, match="average is"):
        kd.Ensemble([linear("a"), linear("b")], "median")
    with pytest.raises(ValueError, match="same classes"):
        kd.Ensemble([linear("a"), linear("b", classes=4)])(points()[0])
    other = kd.EnsembleTeacher([linear("a"), linear("b")])
    with pytest.raises(ValueError, match="member 0 to 1"):
        term = kd.Term(kd.losses.SoftTarget(), teacher="5/logits")
        kd.Distiller(linear("c"), other, terms=[term])


def test_members_that_end_in_probabilities():
    inputs = keras.Input((4,))
    nets = [
        keras.Model(inputs, keras.layers.Dense(3, "softmax")(inputs), name=f"sure{i}")
        for i in range(2)
    ]
    with pytest.raises(ValueError, match="The member 'sure0' ends in probabilities"):
        kd.Ensemble(nets)


def test_members_that_move_their_probabilities():
    """What is behind a reshape is found, and log-probabilities are logits."""
    inputs = keras.Input((4,))

    def nets(activation):
        for i in range(2):
            x = keras.layers.Dense(3, activation)(inputs)
            yield keras.Model(inputs, keras.layers.Reshape((1, 3))(x), name=f"net{i}")

    with pytest.raises(ValueError, match=r"'net0' ends in probabilities \(a softmax"):
        kd.Ensemble(list(nets("softmax")))
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    members = list(nets("log_softmax"))
    p = np.mean([np.exp(keras.ops.convert_to_numpy(net(x))) for net in members], axis=0)
    found = keras.ops.convert_to_numpy(kd.Ensemble(members)(x)).astype("float64")
    np.testing.assert_allclose(softmax(found), p, atol=1e-6)
