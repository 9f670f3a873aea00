"""A file from elsewhere is bounded and checked before it is unpacked."""

import io
import os
import resource
import zipfile

import numpy as np
import pytest

from keras_distill._backend import files

GOOD = {"a": np.linspace(-1.0, 1.0, 6).reshape(2, 3).astype("float32")}


def npy(array, shape=None):
    """Return the bytes of an array, whose header may claim another shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file,
        {
            "shape": array.shape if shape is None else shape,
            "fortran_order": False,
            "descr": np.lib.format.dtype_to_descr(array.dtype),
        },
    )
    return file.getvalue() + array.tobytes()


def write(path, parts, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, contents in parts.items():
            archive.writestr(name, contents)


COUNT = npy(np.array(1))


def test_arrays_of_any_number_type_are_read(tmp_path):
    arrays = {
        "float16": np.float16([1.5, -2.0]),
        "float64": np.array(3.0),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "uint8": np.uint8([1, 255]),
        "big": np.arange(3, dtype=">i4"),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 4), "float32"),
    }
    files.write_arrays(tmp_path / "a.npz", arrays)
    found = files.read_arrays(tmp_path / "a.npz")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].flags.writeable


def pickled(path):
    np.savez(path, count=1, a=np.array([{}], dtype=object))


BAD = {
    "compressed": (
        lambda p: np.savez_compressed(p, count=1, a=np.zeros(10**6)),
        "would take 8,.* bytes, more than",
    ),
    "claims more": (
        lambda p: write(p, {"count.npy": COUNT, "a.npy": npy(GOOD["a"], (2**40,))}),
        "'a' has another size",
    ),
    "negative": (
        lambda p: write(p, {"count.npy": COUNT, "a.npy": npy(GOOD["a"], (-2, -3))}),
        r"'a' has the shape \(-2, -3\)",
    ),
    "long header": (
        lambda p: write(
            p, {"count.npy": COUNT, "a.npy": npy(GOOD["a"], (1,) * 4000 + (6,))}
        ),
        "'a' is no array",
    ),
    "object": (pickled, "'a' must be numbers"),
    "complex": (lambda p: np.savez(p, count=1, a=np.ones(3) * 1j), "complex128"),
    "string": (lambda p: np.savez(p, count=1, a=np.array(["x"])), "must be numbers"),
    "record": (
        lambda p: np.savez(p, count=1, a=np.zeros(2, [("x", "f4")])),
        "must be numbers",
    ),
    "date": (lambda p: np.savez(p, count=1, a=np.zeros(2, "M8[s]")), "must be numbers"),
    "text": (lambda p: write(p, {"count.npy": COUNT, "a.npy": b"hello"}), "no array"),
    "count": (lambda p: np.savez(p, a=np.ones(2)), "not a file of keras_distill"),
    "several counts": (
        lambda p: np.savez(p, count=[1, 1], a=np.ones(2)),
        "not a file of keras_distill",
    ),
    "no whole count": (
        lambda p: np.savez(p, count=1.5, a=np.ones(2)),
        "not a file of keras_distill",
    ),
    "more counted": (lambda p: np.savez(p, count=3, a=np.ones(2)), "1 of 3 arrays"),
    "no archive": (lambda p: p.write_bytes(b"x" * 100), "not a zip file"),
    "array alone": (lambda p: p.write_bytes(npy(GOOD["a"])), "not a zip file"),
    "folder": (lambda p: p.mkdir(), "it is not a file"),
    "pipe": (os.mkfifo, "it is not a file"),
}


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_other_files_are_damaged(tmp_path, make, words):
    make(tmp_path / "a.npz")
    with pytest.raises(files.Damaged, match=words) as error:
        files.read_arrays(tmp_path / "a.npz")
    while error is not None:
        assert "pickle" not in str(error)
        error = getattr(error, "value", error).__cause__


def test_two_arrays_of_one_name_are_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("count.npy", COUNT)
        archive.writestr("a.npy", npy(GOOD["a"]))
        archive.writestr("a", npy(GOOD["a"]))
    with pytest.raises(files.Damaged, match="two arrays have one name"):
        files.read_arrays(tmp_path / "a.npz")


@pytest.mark.long
def test_nothing_is_unpacked_of_what_is_too_large(tmp_path):
    """3 GB of zeros in a file of 3 MB."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("count.npy", COUNT)
        with archive.open("a.npy", "w", force_zip64=True) as part:
            header = npy(np.zeros(0, "uint8"), (3 * 2**30,))
            part.write(header)
            for _ in range(96):
                part.write(bytes(2**25))
    assert os.path.getsize(tmp_path / "a.npz") < 4e6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(files.Damaged, match="would take 3,221,"):
        files.read_arrays(tmp_path / "a.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_headers_are_checked_before_arrays_are_read(tmp_path, monkeypatch):
    files.write_arrays(tmp_path / "a.npz", GOOD)
    monkeypatch.delattr(files.Archive, "read")
    seen = {}

    def check(headers):
        seen.update(headers)
        raise ValueError("of another model")

    with pytest.raises(ValueError, match="of another model"):
        files.read_arrays(tmp_path / "a.npz", check)
    assert seen["a"].shape == (2, 3) and seen["a"].dtype == "float32"


def test_broken_json_says_which_file_and_what_to_do(tmp_path):
    for text in ("{", "[" * 100_000, '{"a": 1'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(
            ValueError, match=r"a\.json' is not valid JSON.*Remove it\."
        ):
            files.read_json(tmp_path / "a.json", "Remove it.")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.json' is not valid JSON"):
        files.read_json(tmp_path / "a.json", "Remove it.")
