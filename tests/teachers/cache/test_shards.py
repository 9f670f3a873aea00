"""Shards are TFRecord files, complete or detected as damaged."""

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_distill.teachers.cache.shards import Shards

ROW = np.dtype([("id", "<u4"), ("values", "<f2", (3,))])


def rows(count, start=0):
    made = np.zeros(count, ROW)
    made["id"] = np.arange(start, start + count)
    made["values"] = np.random.default_rng(start).normal(size=(count, 3))
    return made


@pytest.fixture
def shards(tmp_path):
    files = Shards(tmp_path, ROW, [2500, 1024, 10])
    for shard, count in enumerate(files.counts):
        parts = np.array_split(rows(count, shard * 2500), 7)
        files.write(shard, parts, lambda: {"distance": 0.5})
    return files


def test_tensorflow_reads_the_same_bytes(shards):
    records = [bytes(r.numpy()) for r in tf.data.TFRecordDataset(str(shards.path(0)))]
    assert b"".join(records[:-1]) == rows(2500).tobytes()
    assert [len(r) // ROW.itemsize for r in records[:-1]] == [1024, 1024, 452]
    assert json.loads(records[-1]) == {"distance": 0.5}


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_rows_are_read_at_any_index(shards, shard):
    assert shards.damage(shard) is None
    expected = rows(shards.counts[shard], shard * 2500)
    indices = np.random.default_rng(1).integers(0, len(expected), 400)
    opened = shards.open(shard)
    np.testing.assert_array_equal(opened[indices], expected[indices])
    np.testing.assert_array_equal(opened.column("id"), expected["id"])
    assert shards.examine(shard)[1] == {"distance": 0.5}


def test_any_flipped_bit_is_detected(shards):
    path = shards.path(0)
    contents = path.read_bytes()
    rng = np.random.default_rng(0)
    ends = {0, 7, 8, 11, 12, len(contents) - 1, len(contents) - 25}
    for index in ends | set(rng.integers(0, len(contents), 60).tolist()):
        flipped = bytearray(contents)
        flipped[index] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        assert shards.damage(0) is not None, index
    path.write_bytes(contents)
    assert shards.damage(0) is None


def test_short_long_empty_and_missing_files_are_detected(shards):
    path = shards.path(1)
    contents = path.read_bytes()
    for size in (0, 5, 12, 13, 1000, len(contents) // 2, len(contents) - 1):
        path.write_bytes(contents[:size])
        assert shards.damage(1) is not None, size
    path.write_bytes(contents + b"x")
    assert shards.damage(1) is not None
    path.unlink()
    assert shards.damage(1) == "is missing"
    shards.path(2).write_bytes(b"")
    shards.remove_damaged()
    assert [shards.path(n).exists() for n in range(3)] == [True, False, False]


def test_a_failed_write_leaves_no_file(shards):
    def parts():
        yield rows(100)
        raise RuntimeError("the teacher failed")

    before = shards.path(0).read_bytes()
    with pytest.raises(RuntimeError, match="teacher failed"):
        shards.write(0, parts(), dict)
    assert shards.path(0).read_bytes() == before
    assert not list(shards.folder.glob("*.part*"))
