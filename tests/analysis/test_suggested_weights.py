"""Suggested weights against the closed forms of a linear student's gradients."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.formulas import softmax
from tests.linear import with_kernel as linear
from tests.nets import conv_pair

T, LABELS = 3.0, 0.5
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def problem():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(64, 5)).astype("float32")
    return x, rng.integers(0, 4, 64), rng.normal(size=(2, 5, 4))


def distiller_of(kernels, terms=None, label_weight=LABELS, loss=LOSS):
    if terms is None:
        terms = [
            kd.Term(kd.losses.SoftTarget(T)),
            kd.Term(kd.losses.LogitRegression(), weight=0.1),
        ]
    nets = [linear(k, n) for k, n in zip(kernels, ("student", "teacher"), strict=True)]
    distiller = kd.Distiller(*nets, terms=terms, label_weight=label_weight)
    distiller.compile(keras.optimizers.SGD(0.1), loss)
    return distiller


def gradients(x, y, kernels):
    """Return the gradients of a batch by the student's kernel, in float64."""
    z_s, z_t = x @ kernels[0], x @ kernels[1]
    one_hot = np.eye(4)[y]
    slopes = {
        "label_loss": softmax(z_s) - one_hot,
        "soft_target": T * (softmax(z_s / T) - softmax(z_t / T)),
        "logit_regression": z_s - z_t,
    }
    return {name: x.T @ slope / len(x) for name, slope in slopes.items()}


def norms(x, y, kernels, size):
    """Return the means over batches of the norms, and of the cosines to the labels'."""
    found, cosines = {}, {}
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        batch = gradients(x[rows], y[rows], kernels)
        for name, gradient in batch.items():
            norm = np.linalg.norm(gradient)
            product = (gradient * batch["label_loss"]).sum()
            cosine = product / norm / np.linalg.norm(batch["label_loss"])
            found.setdefault(name, []).append(norm)
            cosines.setdefault(name, []).append(cosine)
    return [{k: np.mean(v) for k, v in x.items()} for x in (found, cosines)]


def test_weights_norms_and_cosines_equal_the_closed_form():
    x, y, kernels = problem()
    suggested = kd.suggest_weights(distiller_of(kernels), (x, y), batch_size=16)
    expected, cosines = norms(x, y, kernels, 16)
    assert suggested.gradients.norms == pytest.approx(expected, rel=1e-5)
    for name in ("soft_target", "logit_regression"):
        pull = LABELS * expected["label_loss"] / expected[name]
        assert suggested[name] == pytest.approx(pull, rel=1e-5)
        found = suggested.gradients.cosine(name)
        assert found == pytest.approx(cosines[name], rel=1e-4)


def test_penalties_are_no_part_of_a_gradient():
    x, y, kernels = problem()
    inputs, penalty = keras.Input((5,)), keras.regularizers.L2(0.1)
    dense = keras.layers.Dense(4, use_bias=False, kernel_regularizer=penalty)
    student = keras.Model(inputs, dense(inputs))
    dense.set_weights([kernels[0]])
    adapter = keras.layers.Dense(4, kernel_regularizer=penalty)
    terms = [
        kd.Term(kd.losses.SoftTarget(T)),
        kd.Term(kd.losses.Hint(), "logits", "logits", adapter=adapter),
    ]
    distiller = kd.Distiller(student, linear(kernels[1], "teacher"), terms=terms)
    distiller.compile("sgd", LOSS)
    found = kd.suggest_weights(distiller, (x, y), batch_size=64).gradients.norms
    expected, _ = norms(x, y, kernels, 64)
    for name in ("label_loss", "soft_target"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    assert found["hint"] > 0


def test_shares_of_single_terms():
    x, y, kernels = problem()
    once, shared = (
        kd.suggest_weights(distiller_of(kernels), (x, y), share=share)
        for share in (1.0, {"soft_target": 3.0})
    )
    assert shared["soft_target"] == pytest.approx(3 * once["soft_target"])
    assert shared["logit_regression"] == pytest.approx(once["logit_regression"])


def test_label_smoothing_pulls_less_hard():
    x, y, kernels = problem()
    smoothing = kd.losses.SoftTarget(1.0, target=kd.targets.Uniform())
    terms = [kd.Term(smoothing, name="smoothing"), kd.Term(kd.losses.SoftTarget(T))]
    found = kd.suggest_weights(distiller_of(kernels, terms), (x, y))
    norms = found.gradients.norms
    pulls = {name: weight * norms[name] for name, weight in found.items()}
    assert pulls["smoothing"] == pytest.approx(0.3 * pulls["soft_target"])
    balanced = [kd.Term(term.loss, name=term.name, weight="balanced") for term in terms]
    distiller = distiller_of(kernels, balanced)
    distiller.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    for name, weight in found.items():
        measured = keras.ops.convert_to_numpy(distiller.terms[name].weight)
        assert float(measured) == pytest.approx(weight, rel=1e-4)


def test_every_kind_of_data_gives_the_same_weights():
    x, y, kernels = problem()
    parts = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)]

    class Parts(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return parts[index]

    kinds = [parts, iter(parts), Parts(), kd.data.batches(kd.data.Samples(x, y), 16)]
    expected = kd.suggest_weights(distiller_of(kernels), (x, y), batch_size=16)
    for data in kinds:
        found = kd.suggest_weights(distiller_of(kernels), data)
        assert dict(found) == pytest.approx(dict(expected), rel=1e-5)


def test_sample_weights_count():
    x, y, kernels = problem()
    weights = np.where(np.arange(64) < 16, 1.0, 0.0).astype("float32")
    found = kd.suggest_weights(
        distiller_of(kernels), (x, y, weights), batch_size=64
    ).gradients.norms
    batch = gradients(x[:16], y[:16], kernels)
    expected = {name: np.linalg.norm(g) / 4 for name, g in batch.items()}
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_schedule_keeps_its_shape():
    x, y, kernels = problem()
    rising = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 2.0)
    terms = [
        kd.Term(kd.losses.SoftTarget(T), weight=rising),
        kd.Term(kd.losses.LogitRegression()),
    ]
    number = kd.suggest_weights(distiller_of(kernels), (x, y))["soft_target"]
    found = kd.suggest_weights(distiller_of(kernels, terms), (x, y))["soft_target"]
    values = [float(found(step)) for step in (0, 5, 10, 100)]
    assert values == pytest.approx([0.0, number / 2, number, number], rel=1e-5)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(found)
    )
    assert float(again(5)) == pytest.approx(values[1])


def test_without_labels_the_first_term_keeps_its_weight():
    x, y, kernels = problem()
    distiller = distiller_of(kernels, label_weight=0.0, loss=None)
    found = kd.suggest_weights(distiller, (x,), batch_size=64)
    expected, _ = norms(x, y, kernels, 64)
    assert found["soft_target"] == 1.0
    ratio = expected["soft_target"] / expected["logit_regression"]
    assert found["logit_regression"] == pytest.approx(ratio, rel=1e-5)


def moving_pair():
    """Return nets with dropout and batch normalization, and images."""
    student, teacher = conv_pair()
    inputs = keras.Input(student.input_shape[1:])
    x = keras.layers.Dropout(0.5)(inputs)
    return keras.Model(inputs, student(x)), teacher


def test_nothing_moves():
    student, teacher = moving_pair()
    distiller = kd.Distiller(student, teacher)
    distiller.compile(keras.optimizers.SGD(0.1), LOSS)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, *student.input_shape[1:])).astype("float32")
    y = rng.integers(0, student.output_shape[-1], 8)
    variables = [*distiller.variables, *teacher.variables]
    before = [keras.ops.convert_to_numpy(v) for v in variables]
    kd.suggest_weights(distiller, (x, y))
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable), value, variable.path
        )


def test_print_and_plot(tmp_path):
    x, y, kernels = problem()
    terms = [
        kd.Term(kd.losses.SoftTarget(T, target=kd.targets.TopK(2)), name="top"),
        kd.Term(kd.losses.Hint(), kd.Tap.layer("logits"), "logits"),
    ]
    suggested = kd.suggest_weights(distiller_of(kernels, terms), (x, y))
    table, lines = str(suggested).split("\n\n")
    assert len(table.splitlines()) == 2 + 3
    assert "cosine to label_loss" in table
    pasted = eval(f"[{lines}]", {"kd": kd})
    assert [term.name for term in pasted] == ["top", "hint"]
    assert [t.weight for t in pasted] == pytest.approx(
        list(suggested.values()), rel=1e-3
    )
    assert pasted[0].loss.get_config() == terms[0].loss.get_config()
    assert pasted[1].student == terms[1].student
    figure = suggested.plot()
    figure.savefig(tmp_path / "pulls.png")
    assert [len(axis.patches) for axis in figure.axes[:1]] == [3]


def test_what_can_not_be_measured_is_named():
    x, y, kernels = problem()
    with pytest.raises(TypeError, match=r"kd.Distiller.*MutualDistiller"):
        kd.suggest_weights(
            kd.MutualDistiller(
                [linear(k, n) for k, n in zip(kernels, "ab", strict=True)]
            ),
            (x, y),
        )
    nets = [linear(k, n) for k, n in zip(kernels, ("s", "t"), strict=True)]
    with pytest.raises(ValueError, match="compile"):
        kd.suggest_weights(kd.Distiller(*nets), (x, y))
    same = np.stack([kernels[0], kernels[0]])
    # The gradient of soft targets is 0 up to rounding.
    with pytest.raises(
        ValueError, match=r"'logit_regression' cannot be measured.* is 0"
    ):
        kd.suggest_weights(distiller_of(same), (x, y))
    with pytest.raises(ValueError, match=r"share names hint.*soft_target"):
        kd.suggest_weights(distiller_of(kernels), (x, y), share={"hint": 1.0})
    with pytest.raises(ValueError, match=r"share\['soft_target'\] must be 0 or more"):
        kd.suggest_weights(distiller_of(kernels), (x, y), share=-1.0)
    with pytest.raises(ValueError, match="empty"):
        kd.suggest_weights(distiller_of(kernels), [])
