"""Metadata of a teacher, and the reconstruction of inputs from it."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.schemes.data_free import goals, spectra
from tests.formulas import softmax

KINDS = {
    "top": {"kind": "top"},
    "all": {"kind": "all"},
    "masked": {"kind": "all", "masks": 2},
    "spectral": {"kind": "spectral"},
    "pairs": {"kind": "pairs"},
}


@pytest.fixture(scope="module")
def digits():
    return kd.data.load("digits")


@pytest.fixture(scope="module")
def teacher(digits):
    keras.utils.set_random_seed(0)
    model = kd.models.mlp((8, 8, 1), 10, units=(64, 48))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(digits.train.images, digits.train.labels, epochs=15, verbose=0)
    return model


def activations(model, path, x):
    layer = model.get_layer(path) if path != "logits" else None
    output = layer.output if layer is not None else model.output
    return keras.Model(model.inputs, output).predict(x, verbose=0)


def test_statistics_are_those_of_each_predicted_class(teacher, digits):
    x = digits.train.images
    arrays = kd.record_metadata(teacher, x, kind="all", rank=200).arrays
    predicted = activations(teacher, "logits", x).argmax(-1)
    np.testing.assert_array_equal(arrays["0/shares"], np.bincount(predicted))
    for path in ("hidden1", "hidden2", "logits"):
        values = activations(teacher, path, x)[predicted == 3].astype("float64")
        np.testing.assert_allclose(
            arrays[f"0/{path}/mean"][3], values.mean(0), atol=1e-4
        )
        factor = arrays[f"0/{path}/factor"][3]
        expected = np.cov(values, rowvar=False, bias=True)
        np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-3)


def test_only_the_requested_layers_are_recorded(teacher, digits):
    x = digits.train.images[:100]
    metadata = kd.record_metadata(teacher, x, kind="all", layers=["hidden1"])
    assert {name.split("/")[1] for name in metadata.arrays} == {"shares", "hidden1"}


def test_a_mask_drops_its_fraction_of_the_neurons(teacher, digits):
    x = digits.train.images[:200]
    metadata = kd.record_metadata(teacher, x, kind="all", masks=2, dropout=0.75)
    first, second = (
        net.get_layer("hidden1_mask").values for net in metadata.views(teacher)
    )
    assert set(first) == {0.0, 4.0} and (first != second).any()
    assert 0.6 < (first == 0.0).mean() < 0.9


def test_draws_have_the_recorded_moments(teacher, digits):
    metadata = kd.record_metadata(teacher, digits.train.images, kind="top")
    drawn = metadata.targets(20000, 0, np.random.default_rng(0))["logits"]
    logits = activations(teacher, "logits", digits.train.images)
    np.testing.assert_allclose(drawn.mean(0), logits.mean(0), atol=0.3)
    np.testing.assert_allclose(drawn.std(0), logits.std(0), rtol=0.1)


def test_the_basis_holds_the_eigenvectors_of_the_graph():
    """The basis diagonalizes the Laplacian, computed here from its definition."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    basis = spectra.fourier_basis(np.c_[values, np.zeros(500)]).astype("float64")
    np.testing.assert_allclose(basis.T @ basis, np.eye(7), atol=1e-5)
    weights = np.abs(np.corrcoef(values, rowvar=False)) - np.eye(6)
    scale = np.diag(1 / np.sqrt(weights.sum(0)))
    laplacian = np.eye(6) - scale @ weights @ scale
    eigenvalues = [*np.linalg.eigvalsh(laplacian), 1.0]
    expected = np.eye(7)
    expected[:6, :6] = laplacian
    diagonal = np.diag(basis.T @ expected @ basis)
    np.testing.assert_allclose(np.sort(diagonal), np.sort(eigenvalues), atol=1e-5)
    off = basis.T @ expected @ basis - np.diag(diagonal)
    assert np.abs(off).max() < 1e-5


@pytest.mark.parametrize("kind", ["spectral", "pairs"])
def test_all_coefficients_restore_the_activations(kind, teacher, digits):
    x = digits.train.images[:300]
    metadata = kd.record_metadata(teacher, x, kind=kind, keep=0.999)
    targets = metadata.targets(300, 0, np.random.default_rng(3))
    order = np.random.default_rng(3).permutation(300)
    for path, values in targets.items():
        expected = activations(teacher, path, x)[order]
        assert np.abs(values - expected).max() < 0.02 * np.abs(expected).max()


def errors_of(parts, goal):
    """Return the errors of a goal, computed by the backend."""
    cast = keras.ops.convert_to_tensor
    numbers = (None if x is None else cast(x) for x in goal[1:])
    return keras.ops.convert_to_numpy(goals.errors(list(map(cast, parts)), *numbers))


def restored(basis, spectrum, count):
    """Return activations from the largest coefficients of one sample."""
    kept = np.argsort(-np.abs(spectrum), kind="stable")[:count]
    return basis[:, kept] @ spectrum[kept].astype("float16").astype("float64")


@pytest.mark.parametrize("kind", ["spectral", "pairs"])
def test_as_many_coefficients_are_kept_as_keep_the_predicted_class(
    kind, teacher, digits
):
    """A tenth of ten logits, one coefficient, would keep hardly any class."""
    x = digits.train.images[:300]
    arrays = kd.record_metadata(teacher, x, kind=kind, keep=0.1).arrays
    logits = activations(teacher, "logits", x)
    hidden = activations(teacher, "hidden2", x)
    last = 1 if kind == "pairs" else 2
    values = np.hstack([hidden, logits]) if kind == "pairs" else logits
    basis, counts = arrays[f"{last}/basis"], arrays[f"{last}/counts"]
    least = round(0.1 * values.shape[-1])
    assert counts.min() == least and counts.max() == arrays[f"{last}/places"].shape[-1]
    assert len(set(counts.tolist())) > 3
    spectra_of = values.astype("float32") @ basis
    for spectrum, count, first in zip(
        spectra_of, counts, logits.argmax(-1), strict=True
    ):
        for fewer in range(least, count + 1):
            found = restored(np.float64(basis), spectrum, fewer)[-10:].argmax()
            assert (found == first) == (fewer == count)
    for group in range(last):
        width = len(arrays[f"{group}/basis"])
        assert set(arrays[f"{group}/counts"].tolist()) == {round(0.1 * width)}


def test_no_activation_behind_a_relu_is_negative(teacher, digits):
    x = digits.train.images[:300]
    for kind in ("spectral", "pairs"):
        metadata = kd.record_metadata(teacher, x, kind=kind)
        targets = metadata.targets(300, 0, np.random.default_rng(0))
        (*_, last) = metadata.goals(300, 0, np.random.default_rng(0))
        plain = last.values @ last.basis.T
        np.testing.assert_allclose(targets["logits"], plain[:, -10:], atol=1e-5)
        assert targets["logits"].min() < 0.0
        if kind == "spectral":
            (_, middle, _) = metadata.goals(300, 0, np.random.default_rng(0))
            plain = middle.values @ middle.basis.T
            assert plain.min() < -0.1
            np.testing.assert_allclose(targets["hidden2"], plain.clip(0), atol=1e-5)
        assert min(targets[f"hidden{i}"].min() for i in (1, 2)) == 0.0


def test_only_the_coefficients_that_were_kept_count(teacher, digits):
    """The loss of a pair of layers, by a loop over samples and coefficients."""
    x = digits.train.images[:40]
    metadata = kd.record_metadata(teacher, x, kind="pairs")
    *_, goal = metadata.goals(40, 0, np.random.default_rng(0))
    assert goal.layers == ("hidden2", "logits")
    kept = goal.weights > 0
    assert 4 < kept.sum() / 40 < 30
    other = digits.train.images[40:80]
    parts = [activations(teacher, path, other) for path in goal.layers]
    spectrum = np.hstack(parts).astype("float64") @ goal.basis
    gaps = [
        np.mean([(a - b) ** 2 for a, b, k in zip(*row, strict=True) if k])
        for row in zip(spectrum, goal.values, kept, strict=True)
    ]
    squares = [np.mean(v[k] ** 2) for v, k in zip(goal.values, kept, strict=True)]
    found = errors_of(parts, goal)
    np.testing.assert_allclose(found, np.array(gaps) / np.mean(squares), rtol=1e-4)


def test_statistics_are_compared_with_all_activations(teacher, digits):
    x = digits.train.images[:40]
    drawn = {"hidden1": activations(teacher, "hidden1", x)}
    (goal,) = goals.of_activations(drawn)
    other = activations(teacher, "hidden1", digits.train.images[40:80])
    expected = ((other - drawn["hidden1"]) ** 2).mean(-1) / (
        drawn["hidden1"] ** 2
    ).mean()
    np.testing.assert_allclose(errors_of([other], goal), expected, rtol=1e-4)


@pytest.mark.parametrize("arguments", KINDS.values(), ids=KINDS)
def test_reconstructions_are_recognized(arguments, teacher, digits, tmp_path):
    x = digits.train.images
    kd.record_metadata(teacher, x, **arguments).save(tmp_path / "metadata")
    metadata = kd.Metadata.load(tmp_path / "metadata")
    images = kd.reconstruct(teacher, metadata, 60, steps=150, batch_size=30, verbose=0)
    assert images.shape == (60, 8, 8, 1) and images.dtype == "float32"
    assert images.min() >= 0.0 and images.max() <= 1.0
    noise = np.clip(np.random.default_rng(1).normal(0.15, 0.1, images.shape), 0, 1)
    confidence = [
        softmax(teacher.predict(batch, verbose=0)).max(-1).mean()
        for batch in (images, noise, x)
    ]
    assert confidence[0] > 0.5 * (confidence[1] + confidence[2])
    classes = teacher.predict(images, verbose=0).argmax(-1)
    assert len(set(classes.tolist())) >= 8


def test_the_file_holds_no_sample_and_no_pickle(teacher, digits, tmp_path):
    x = digits.train.images
    kd.record_metadata(teacher, x, kind="all").save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays)
        assert all(len(x) not in arrays[name].shape for name in arrays)


def test_invalid_input_raises(teacher, digits, tmp_path):
    x = digits.train.images[:50]
    metadata = kd.record_metadata(teacher, x, kind="top")
    other = kd.models.mlp((8, 8, 1), 10, units=(64, 48))
    with pytest.raises(ValueError, match="another teacher"):
        kd.reconstruct(other, metadata, 10)
    with pytest.raises(ValueError, match="count must be an integer of 1 or more"):
        kd.reconstruct(teacher, metadata, 0)
    for arguments, words in (
        ({"kind": "some"}, "kind must be one of"),
        ({"kind": "top", "masks": 2}, "need kind='all'"),
        ({"keep": 0.0}, "keep must lie between 0 and 1"),
        ({"dropout": 1.0}, "dropout must lie between 0 and 1"),
        ({"kind": "pairs", "layers": ["hidden1"]}, "needs two layers or more"),
        ({"layers": ["hidden9"]}, "no layer 'hidden9'"),
        ({"kind": "all", "masks": 2, "layers": ["logits"]}, "put on hidden layers"),
    ):
        with pytest.raises(ValueError, match=words):
            kd.record_metadata(teacher, x, **arguments)
    np.savez(tmp_path / "n.npz", a=x)
    with pytest.raises(ValueError, match="not a metadata file"):
        kd.Metadata.load(tmp_path / "n.npz")


def test_layers_inside_of_others_are_not_left_out_silently(teacher, digits):
    inputs = keras.Input((8, 8, 1))
    nested = keras.Model(inputs, teacher(inputs), name="nested")
    with pytest.raises(ValueError, match=r"'hidden1'.*are inside of others"):
        kd.record_metadata(nested, digits.train.images[:50], kind="all")


@pytest.mark.parametrize("masks", [0, 2])
def test_a_sequential_teacher_has_the_metadata_of_a_functional_one(masks, digits):
    keras.utils.set_random_seed(0)
    row = [
        keras.layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
    sequential = keras.Sequential([keras.Input((8, 8, 1)), *row])
    functional = keras.Model(sequential.inputs, sequential.outputs)
    images = digits.train.images[:50]
    found, expected = (
        kd.record_metadata(x, images, kind="all", masks=masks)
        for x in (sequential, functional)
    )
    assert "0/depthwise/mean" in expected.arrays
    assert set(found.arrays) == set(expected.arrays)
    for name, array in expected.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, atol=1e-5)


def test_every_mask_gets_an_equal_part_of_the_inputs(teacher, digits):
    metadata = kd.record_metadata(
        teacher, digits.train.images[:200], kind="all", masks=3, seed=1
    )
    calls = []
    targets = metadata.targets

    def counted(count, view, rng):
        calls.append((view, count))
        return targets(count, view, rng)

    metadata.targets = counted
    images = kd.reconstruct(teacher, metadata, 10, steps=1, verbose=0)
    assert len(images) == 10
    assert calls == [(0, 4), (1, 4), (2, 4)]


def test_a_teacher_with_probabilities_raises(digits):
    x = keras.Input((8, 8, 1))
    probabilities = keras.layers.Dense(10, "softmax")(keras.layers.Flatten()(x))
    with pytest.raises(ValueError, match="ends in probabilities"):
        kd.record_metadata(keras.Model(x, probabilities), digits.train.images[:9])
