"""Metadata from elsewhere are bounded, checked and named."""

import json
import os
import zipfile

import keras
import numpy as np
import pytest

import keras_distill as kd


def net():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


X = np.random.default_rng(1).normal(size=(12, 4)).astype("float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the paths of saved metadata by kind."""
    folder, teacher = tmp_path_factory.mktemp("metadata"), net()
    for kind in ("top", "all", "spectral", "pairs"):
        kd.record_metadata(teacher, X, kind=kind).save(folder / kind)
    return folder


def refused(path, words, **arguments):
    with pytest.raises(ValueError, match=words) as error:
        kd.Metadata.load(path, **arguments)
    assert str(path) in str(error.value) and "pickle" not in str(error.value)


@pytest.mark.parametrize("kind", ["top", "all", "spectral", "pairs"])
def test_a_flipped_bit_is_found_or_changes_nothing(saved, tmp_path, kind):
    expected = kd.Metadata.load(saved / kind)
    whole = (saved / kind).read_bytes()
    found = 0
    for bit in range(0, 8 * len(whole), 41):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "m").write_bytes(damaged)
        try:
            metadata = kd.Metadata.load(tmp_path / "m")
        except ValueError as error:
            assert str(tmp_path / "m") in str(error)
            found += 1
            continue
        # Times and the like are no part of the arrays.
        assert metadata.settings == expected.settings
        for name, array in expected.arrays.items():
            np.testing.assert_array_equal(metadata.arrays[name], array)
    assert found > 0.5 * len(range(0, 8 * len(whole), 41))


def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(saved, tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "m", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("settings.npy", "w", force_zip64=True) as part,
    ):
        for _ in range(34):
            part.write(bytes(2**25))
    assert os.path.getsize(tmp_path / "m") < 2e6
    refused(tmp_path / "m", r"would take 1,140,850,688 bytes, more than 1,073,741,824")
    refused(saved / "all", "more than 500 bytes", limit=500)
    kd.Metadata.load(saved / "all", limit=10**6)


def test_what_is_no_metadata_is_refused_by_name(tmp_path):
    (tmp_path / "m").write_bytes(b"x" * 99)
    refused(tmp_path / "m", "not a metadata file")
    np.save(tmp_path / "m.npy", np.array([{}]))
    refused(tmp_path / "m.npy", "not a metadata file")
    np.savez(tmp_path / "m.npz", settings=np.array([{}]))
    refused(tmp_path / "m.npz", "'settings' must be numbers")
    for text in (b"{", b"[" * 100_000, b"3", b"{}"):
        np.savez(tmp_path / "m.npz", settings=np.frombuffer(text, "uint8"))
        refused(tmp_path / "m.npz", "not a metadata file")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        kd.Metadata.load(tmp_path / "nowhere")


def resized(kind, name, change):
    """Return a function that changes one array of metadata."""

    def write(metadata):
        metadata.arrays[name] = change(metadata.arrays[name])

    return kind, write


def without(kind, name):
    return kind, lambda metadata: metadata.arrays.pop(name)


def setting(kind, name, value):
    return kind, lambda metadata: metadata.settings.update({name: value})


CHANGES = {
    "complex": (resized("all", "0/hidden/mean", lambda a: a * 1j), "must be numbers"),
    "strings": (resized("all", "0/hidden/mean", lambda a: a.astype(str)), "numbers"),
    "integers": (resized("all", "0/hidden/mean", lambda a: a.astype(int)), "int64"),
    "nan": (resized("all", "0/hidden/factor", lambda a: a * np.nan), "not finite"),
    "narrow": (resized("all", "0/hidden/mean", lambda a: a[:, 1:]), r"\(3, 4\)"),
    "flat": (
        resized("all", "0/hidden/factor", lambda a: a[0]),
        "factor' has the shape",
    ),
    "negative": (resized("top", "0/shares", lambda a: -1 - a), "negative"),
    "none": (resized("top", "0/shares", lambda a: 0 * a), "no samples"),
    "missing": (without("all", "0/hidden/low"), "differ in 0/hidden/low"),
    "no factor": (without("all", "0/hidden/factor"), "factor' has the shape None"),
    "places": (resized("spectral", "1/places", lambda a: a + 90), "a neuron above 2"),
    "values": (resized("pairs", "0/values", lambda a: a[1:]), r"\(11, 2\)"),
    "sizes": (resized("pairs", "0/sizes", lambda a: a * 2), r"not \(16, 16\)"),
    "counts": (resized("spectral", "1/counts", lambda a: a + 9), "a number above"),
    "no lows": (without("pairs", "0/lows"), "differ in 0/lows"),
    "kind": (setting("all", "kind", "some"), "kind 'some'"),
    "masks": (setting("all", "masks", 2), "1/shares"),
    "negative masks": (setting("all", "masks", -1), "number of masks is -1"),
    "no layers": (setting("all", "layers", []), r"its layers are \[\]"),
    "too many arrays": (
        ("all", lambda metadata: metadata.arrays.update(more=np.zeros(3))),
        "differ in more",
    ),
    "layers": (setting("all", "layers", [1]), "its layers are"),
    "shape": (setting("all", "input_shape", [-4]), "its input_shape is"),
    "seed": (setting("all", "seed", "0"), "setting 'seed' is '0'"),
}


@pytest.mark.parametrize("change, words", CHANGES.values(), ids=CHANGES)
def test_other_arrays_and_settings_are_refused(saved, tmp_path, change, words):
    kind, spoil = change
    metadata = kd.Metadata.load(saved / kind)
    spoil(metadata)
    metadata.save(tmp_path / "m")
    refused(tmp_path / "m", words)


def test_metadata_of_other_connections_are_refused(tmp_path):
    def net(number):
        inputs = keras.Input((4,))
        x = keras.layers.Dense(3, kernel_initializer="ones", name="hidden")(
            inputs / number
        )
        outputs = keras.layers.Dense(2, kernel_initializer="ones", name="logits")(x)
        return keras.Model(inputs, outputs)

    kd.record_metadata(net(2.0), X).save(tmp_path / "m")
    metadata = kd.Metadata.load(tmp_path / "m")
    metadata.check_teacher(net(2.0))
    with pytest.raises(ValueError, match=r"belong to another teacher.*connections"):
        metadata.check_teacher(net(4.0))
    # A file of an earlier version.
    del metadata.settings["connections"]
    metadata.save(tmp_path / "m")
    kd.Metadata.load(tmp_path / "m").check_teacher(net(4.0))
    metadata.settings["connections"] = 3
    metadata.save(tmp_path / "m")
    refused(tmp_path / "m", "setting 'connections' is 3")


def test_inputs_of_another_shape_are_refused_before_they_are_made(saved):
    metadata = kd.Metadata.load(saved / "all")
    metadata.settings["input_shape"] = [10**9]
    with pytest.raises(ValueError, match=r"inputs \[1000000000\], but .* takes \[4\]"):
        kd.reconstruct(net(), metadata, 2, steps=1, verbose=0)


def test_broken_json_of_a_scheme_and_of_results_says_what_to_do(tmp_path):
    plan = tmp_path / "s" / "plan.json"
    plan.parent.mkdir()
    plan.write_text('{"stages": ')
    distiller = kd.Distiller(net(), net())
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
    with pytest.raises(ValueError, match=r"plan\.json' is not valid JSON.*Remove the"):
        kd.fit_stages(distiller, [kd.Stage()], X, np.zeros(12), backup=plan.parent)
    plan.unlink()
    stage = kd.Stage(epochs=1)
    for text in ("{}", "5", "null", "[1]", '[{"loss": "a"}]'):
        (plan.parent / "0.json").write_text(text)
        with pytest.raises(ValueError, match=r"0\.json' has no logs of epochs. Write"):
            kd.fit_stages(distiller, [stage], X, np.zeros(12), backup=plan.parent)
    for text in ("{", "3", json.dumps({"settings": {}})):
        (tmp_path / "runs.json").write_text(text)
        with pytest.raises(ValueError, match=r"runs\.json'.*remove it to run"):
            kd.analysis.Runs(tmp_path / "runs.json")
