"""Damage to any file of a cache, and data that no cache could be built from."""

import gc
import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from keras_distill.teachers.cache import contents, joining, mapped_files
from tests import processes

CLASSES, WIDTH = 4, 3


def net(seed=0, dtype="float32"):
    """A dense layer, whose weights NumPy draws."""
    inputs = keras.Input((WIDTH,), dtype=dtype)
    x = keras.ops.cast(inputs, "float32") if dtype != "float32" else inputs
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def samples(count=12, ids=None, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype("float32")
    return kd.data.Samples(x, np.zeros(count, "int32"), ids)


def cache(folder, data=None, teacher=None, shard_rows=3, **arguments):
    data = samples() if data is None else data
    arguments = {"top_k": 2, "temperature": 4.0, **arguments}
    cached = kd.CachedTeacher(folder, teacher or net(), **arguments)
    return cached.build(data, 4, shard_rows=shard_rows, verbose=0)


def use(folder):
    """Read all rows of a cache, as they are read and as they are joined."""
    cached = kd.CachedTeacher(folder)
    cached.read(samples().ids)


def is_found(folder):
    """Whether reading fails, and says in which file."""
    try:
        use(folder)
    except ValueError as error:
        assert "cache.json" in str(error) or "shard-" in str(error), error
        return True
    return False


def flipped(path, bits):
    """Flip bits of a file one by one; yield each."""
    whole = path.read_bytes()
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        yield bit
    path.write_bytes(whole)


def test_any_flipped_bit_of_the_description_is_found(tmp_path):
    cache(tmp_path / "c")
    path = tmp_path / "c" / "cache.json"
    for _ in flipped(path, range(8 * path.stat().st_size)):
        with pytest.raises(ValueError, match=r"cache\.json' can't be read"):
            contents.read(tmp_path / "c")
    use(tmp_path / "c")


@pytest.mark.parametrize(
    "step", [97, pytest.param(1, marks=pytest.mark.long)], ids=["sample", "all"]
)
def test_a_flipped_bit_of_any_file_is_found(tmp_path, step):
    cache(tmp_path / "c")
    files = sorted((tmp_path / "c").iterdir())
    shards = [f"shard-{n:05d}.tfrecord" for n in range(4)]
    assert [file.name for file in files] == ["cache.json", *shards]
    for path in files:
        for bit in flipped(path, range(0, 8 * path.stat().st_size, step)):
            assert is_found(tmp_path / "c"), f"bit {bit} of {path.name}"
    use(tmp_path / "c")


def test_a_temperature_that_was_edited_is_found(tmp_path):
    cache(tmp_path / "c")
    path = tmp_path / "c" / "cache.json"
    text = path.read_text()
    path.write_text(text.replace('"temperature": 4.0', '"temperature": 2.0'))
    with pytest.raises(ValueError, match="has changed since it was written"):
        kd.CachedTeacher(tmp_path / "c")
    path.write_text(text + "\n")
    with pytest.raises(ValueError, match="has changed since it was written"):
        kd.CachedTeacher(tmp_path / "c")


BAD_DESCRIPTIONS = {
    "deep": (b"[" * 100_000, "recursion"),
    "large": (b" " * (contents.MOST_BYTES + 1), "larger than"),
    "list": (b"[1, 2]", "list"),
    "newer": (b'{"format": 3}', "its format is 3, not 2"),
    "text": (b"\xff\xfe\xff", "decode"),
}


@pytest.mark.parametrize("text, words", BAD_DESCRIPTIONS.values(), ids=BAD_DESCRIPTIONS)
def test_a_description_that_is_none_raises(tmp_path, text, words):
    (tmp_path / "cache.json").write_bytes(text)
    with pytest.raises(
        ValueError, match=rf"cache\.json' can't be read.*{words}.*build"
    ):
        kd.CachedTeacher(tmp_path)


def test_a_description_of_too_many_shards_raises(tmp_path):
    cached = cache(tmp_path / "c")
    (tmp_path / "c" / "cache.json").unlink()
    fields = {**vars(cached.contents), "samples": 10**12, "shard_rows": 1}
    fields.pop("checksum", None)
    contents.Contents(**fields).write(tmp_path / "c")
    with pytest.raises(ValueError, match="lists more than 10000000 shards"):
        kd.CachedTeacher(tmp_path / "c")


def exchange(one, other):
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


def shard(folder, number):
    return folder / f"shard-{number:05d}.tfrecord"


@pytest.mark.parametrize(
    "a, b, words",
    [
        (0, 1, "shard-00000.tfrecord is shard 1 of view 0"),
        (0, 4, "shard-00000.tfrecord is shard 0 of view 1"),
        (5, 7, "shard-00005.tfrecord is shard 3 of view 1"),
    ],
)
def test_exchanged_shards_are_found(tmp_path, a, b, words):
    views = kd.data.Views(lambda x, seed: x + tf.cast(seed[0], x.dtype), 2)
    cached = cache(tmp_path / "c", views=views)
    expected = cached.read(samples().ids, 1)["logits"]["logits"]
    exchange(shard(tmp_path / "c", a), shard(tmp_path / "c", b))
    with pytest.raises(ValueError, match=words):
        kd.CachedTeacher(tmp_path / "c").read([0])
    again = cache(tmp_path / "c", views=views)
    found = again.read(samples().ids, 1)["logits"]["logits"]
    np.testing.assert_array_equal(found, expected)


def test_a_shard_of_another_cache_is_found(tmp_path):
    cache(tmp_path / "c")
    cache(tmp_path / "d", teacher=net(seed=5))
    shutil.copy(shard(tmp_path / "d", 2), shard(tmp_path / "c", 2))
    with pytest.raises(ValueError, match=r"shard-00002\.tfrecord is of another cache"):
        kd.CachedTeacher(tmp_path / "c").read([0])
    # Left over from a cache whose description somebody removed.
    (tmp_path / "d" / "cache.json").unlink()
    found = cache(tmp_path / "d").read([0])["logits"]["logits"]
    np.testing.assert_array_equal(
        found, cache(tmp_path / "c").read([0])["logits"]["logits"]
    )


@pytest.mark.parametrize("limit", [joining.LIMIT, 0], ids=["in memory", "on disk"])
def test_ids_are_compared_as_rows_are_read(tmp_path, limit, monkeypatch):
    """Views in two orders, as by version 0.1.0, whose shards have no labels."""
    monkeypatch.setattr(joining, "LIMIT", limit)
    views = kd.data.Views(lambda x, seed: x, 2)
    described = cache(tmp_path / "c", views=views).contents
    fields = {**vars(described), "format": 1, "exact": ()}
    fields.pop("checksum", None)
    (tmp_path / "c" / "cache.json").unlink()
    contents.Contents(**fields).write(tmp_path / "c")
    exchange(shard(tmp_path / "c", 4), shard(tmp_path / "c", 5))
    with pytest.warns(UserWarning, match="of an earlier version"):
        cached = kd.CachedTeacher(tmp_path / "c")
    assert len(cached.read([0, 5])["logits"]["logits"]) == 2
    with pytest.raises(ValueError, match=r"In view 1 .* sample 3 in the place of 0"):
        cached.read([0, 5], 1)
    train = kd.data.batches(samples(), 4, sample_ids=True, augment=views)
    with pytest.raises((ValueError, tf.errors.OpError), match="In view 1"):
        list(cached.join(train).repeat(8))


def never(*arguments):
    raise AssertionError("the teacher ran")


BAD_IDS = {
    "negative": (np.arange(12) - 1, r"0 to 2\^63 - 1; got \[-1\]"),
    "too large": (np.arange(12, dtype="uint64") + 2**63, "63 - 1"),
    "floats": (np.arange(12.0), "one integer for each .* got float64"),
    "strings": (np.arange(12).astype(str), "one integer for each .* got <U"),
    "booleans": (np.arange(12) > 3, "one integer for each .* got bool"),
    "a column": (np.arange(12)[:, None], r"\(12,\); got int64 \(12, 1\)"),
    "too few": (np.arange(5), r"\(12,\); got int64 \(5,\)"),
    "twice": (np.arange(12) // 2, "occur more than once"),
}


@pytest.mark.parametrize("ids, words", BAD_IDS.values(), ids=BAD_IDS)
def test_ids_are_refused_before_the_teacher_runs(tmp_path, ids, words, monkeypatch):
    teacher = kd.CachedTeacher(tmp_path / "c", net())
    monkeypatch.setattr(kd.Teacher, "__call__", never)
    with pytest.raises(ValueError, match=words):
        teacher.build(samples(ids=ids), verbose=0)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("kind", [k for k in BAD_IDS if k != "too few"])
def test_ids_of_a_stream_are_refused_too(tmp_path, kind, monkeypatch):
    ids = BAD_IDS[kind][0]
    x = {"image": samples().images, "sample_id": ids}
    stream = tf.data.Dataset.from_tensor_slices(x).batch(5)
    teacher = kd.CachedTeacher(tmp_path / "c", net())
    monkeypatch.setattr(kd.Teacher, "__call__", never)
    with pytest.raises(
        ValueError, match=r"must be integers \(B,\)|must be 0|more than"
    ):
        teacher.build(stream, verbose=0)
    if ids.ndim == 1:
        with pytest.raises(ValueError, match=r"must be integers \(B,\)"):
            teacher.build(stream.unbatch(), verbose=0)
    assert not (tmp_path / "c").exists()


def test_data_in_another_order_are_refused(tmp_path):
    x = {"image": samples().images, "sample_id": np.arange(12)}
    stream = tf.data.Dataset.from_tensor_slices(x).shuffle(12, seed=1).batch(5)
    with pytest.raises(ValueError, match=r"in another order than before.*shuffle\(\)"):
        cache(tmp_path / "c", stream)


def test_ids_and_views_to_read_are_integers(tmp_path):
    cached = cache(tmp_path / "c")
    for ids in ([1.0], ["1"], [True]):
        with pytest.raises(ValueError, match="ids must be integers"):
            cached.read(ids)
    with pytest.raises(ValueError, match="views must be integers"):
        cached.read([1], [0.5])
    with pytest.raises(ValueError, match=r"ids must be \(B,\)"):
        cached.read([[1]])
    assert len(cached.read([])["logits"]["logits"]) == 0
    x = {"image": samples().images, "sample_id": np.arange(12.0)}
    stream = tf.data.Dataset.from_tensor_slices(x).batch(4)
    with pytest.raises(ValueError, match=r"'sample_id' must be integers"):
        cached.join(stream)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("how", ["samples", "stream", "views"])
def test_inputs_that_are_not_finite_are_not_cached(tmp_path, value, how):
    data, views = samples(), None
    if how == "views":
        views = kd.data.Views(lambda x, seed: tf.where(seed[1] == 7, value, x), 2)
    else:
        data.images[7, 1] = value
    if how == "stream":
        data = kd.data.batches(data, 5, sample_ids=True)
    with pytest.raises(ValueError, match=r"inputs.* are not finite.* ids \[7\]"):
        cache(tmp_path / "c", data, views=views)
    assert not list(tmp_path.glob("c/shard-00002*"))


def test_inputs_too_large_to_be_recognized_are_not_cached(tmp_path):
    data = samples()
    data.images[7, 1] = 1e30
    with pytest.raises(ValueError, match=r"ids \[7\].*above 1e18"):
        cache(tmp_path / "c", data)


@pytest.mark.parametrize("limit", [joining.LIMIT, 0], ids=["in memory", "on disk"])
@pytest.mark.parametrize("index", [1, 10], ids=["first batch", "third batch"])
def test_inputs_that_are_not_finite_are_not_joined(tmp_path, limit, index, monkeypatch):
    monkeypatch.setattr(joining, "LIMIT", limit)
    cached, data = cache(tmp_path / "c"), samples()
    data.images[index, 0] = np.nan
    with pytest.raises(
        (ValueError, tf.errors.OpError), match=rf"not finite.*\[{index}\]"
    ):
        list(cached.join(kd.data.batches(data, 4, sample_ids=True)))


def tokens(count=12, dtype="int32"):
    x = np.random.default_rng(0).integers(1, 30_000, (count, WIDTH))
    return kd.data.Samples(x.astype(dtype), np.zeros(count, "int32"))


@pytest.mark.parametrize("limit", [joining.LIMIT, 0], ids=["in memory", "on disk"])
@pytest.mark.parametrize("index", [1, 10], ids=["first batch", "third batch"])
def test_a_token_that_changed_by_one_is_found(tmp_path, limit, index, monkeypatch):
    monkeypatch.setattr(joining, "LIMIT", limit)
    cached = cache(tmp_path / "c", tokens(), net(dtype="int32"))
    join = lambda data: list(  # noqa: E731
        cached.join(kd.data.batches(data, 4, sample_ids=True))
    )
    for dtype in ("int32", "int64", "float32"):
        assert len(join(tokens(dtype=dtype))) == 3
    for change in (1, -1, 2**16):
        data = tokens()
        data.images[index, 2] += change
        with pytest.raises((ValueError, tf.errors.OpError), match=rf"ids \[{index}\]"):
            join(data)
    data = tokens(dtype="float32")
    data.images[index, 2] += 0.25
    with pytest.raises((ValueError, tf.errors.OpError), match=rf"ids \[{index}\]"):
        join(data)


def test_integers_beside_floats_are_compared_exactly(tmp_path):
    parts = keras.Input((WIDTH,), name="a"), keras.Input((2,), name="b", dtype="uint8")
    x = keras.ops.concatenate([parts[0], keras.ops.cast(parts[1], "float32")], -1)
    model = keras.Model(parts, keras.layers.Dense(CLASSES)(x))
    arrays = {
        "a": samples().images,
        "b": np.random.default_rng(0).integers(0, 256, (12, 2)).astype("uint8"),
        "sample_id": np.arange(12),
    }

    def stream(arrays):
        return tf.data.Dataset.from_tensor_slices(arrays).batch(4)

    cached = cache(tmp_path / "c", stream(arrays), model, inputs=["a", "b"])
    assert cached.contents.exact == (False, True)
    list(cached.join(stream(arrays)))
    for name, change in (("a", 1.0), ("b", 1)):
        changed = {**arrays, name: arrays[name].copy()}
        changed[name][5, 0] += np.asarray(change, changed[name].dtype)
        with pytest.raises(tf.errors.OpError, match=r"ids \[5\]"):
            list(cached.join(stream(changed)))


def test_the_second_to_begin_finds_the_first(tmp_path):
    """Both looked into the empty folder before either wrote."""
    first, same, other = (
        kd.CachedTeacher(tmp_path / "c", net(seed), top_k=2, temperature=4.0)
        for seed in (0, 0, 1)
    )
    first.build(samples(), 4, shard_rows=3, verbose=0)
    expected = first.read(samples().ids)["logits"]["logits"]
    with pytest.raises(ValueError, match="not built with this teacher"):
        other.build(samples(), 4, shard_rows=3, verbose=0)
    same.build(samples(), 4, shard_rows=5, verbose=0)
    assert same.contents.shard_rows == 3
    found = kd.CachedTeacher(tmp_path / "c").read(samples().ids)["logits"]["logits"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.long
def test_of_two_teachers_in_two_processes_one_has_the_folder(tmp_path):
    module, rounds = "tests.teachers.cache.racer", 6
    racers = [[tmp_path, seed, rounds] for seed in (0, 1)]
    started = processes.start_each(module, racers, tmp_path, "tensorflow")
    for index, process in enumerate(started):
        assert process.wait(timeout=300) == 0, (tmp_path / f"{index}.log").read_text()
    results = [json.loads((tmp_path / f"{n}.json").read_text()) for n in (0, 1)]
    for turn, both in enumerate(zip(*results, strict=True)):
        winner = both.index("built")
        assert "not built with this teacher" in both[1 - winner]
        cached = kd.CachedTeacher(
            tmp_path / f"round-{turn}", net(winner), top_k=2, temperature=4.0
        )
        assert len(cached.read(samples().ids)["logits"]["logits"]) == 12


@pytest.mark.long
def test_a_process_opens_few_files_of_many_shards(tmp_path):
    """1,100 shards under a limit of 64 open files."""
    count = 1100
    cached = cache(tmp_path / "c", samples(count), shard_rows=1)
    expected = cached.read(np.arange(count))["logits"]["logits"]
    np.save(tmp_path / "expected.npy", expected)
    printed = processes.run(
        "tests.teachers.cache.few_files", "tensorflow", tmp_path, count
    )
    assert int(printed) <= 64


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.long
@pytest.mark.parametrize("limit", [joining.LIMIT, 0], ids=["in memory", "on disk"])
def test_fifty_caches_leave_few_files_open(tmp_path, limit, monkeypatch):
    """None where rows are in memory; else those that were read last."""
    monkeypatch.setattr(joining, "LIMIT", limit)
    monkeypatch.setattr(mapped_files, "MOST", 8)
    cache(tmp_path / "c")
    train = kd.data.batches(samples(), 4, sample_ids=True)
    kept, counts = [], []
    for _ in range(50):
        cached = kd.CachedTeacher(tmp_path / "c")
        next(iter(cached.join(train)))
        kept.append(cached)
        counts.append(open_files())
    assert max(counts) - counts[4] <= 4, counts


def test_files_of_a_cache_that_is_gone_are_closed(tmp_path):
    before = open_files()
    cached = cache(tmp_path / "c")
    cached.read(samples().ids)
    assert open_files() == before + 4
    del cached
    gc.collect()
    assert open_files() == before


def test_a_shard_that_was_replaced_is_not_read(tmp_path):
    cached = cache(tmp_path / "c")
    cached.read([0])
    path = shard(tmp_path / "c", 1)
    cached._reader.close()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"shard-00001\.tfrecord' has changed since"):
        cached.read([4])
