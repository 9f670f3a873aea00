"""Sharded data: each sample once per epoch, and the update of a single process."""

import itertools

import keras
import numpy as np
import pytest

from tests.distribution import shards
from tests.processes import results, start

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)
SCRIPT = "tests.distribution.shards"


def train(tmp_path, count, counts, by):
    files = tmp_path / "files"
    files.mkdir()
    shards.write(files, counts)
    return start(SCRIPT, tmp_path, count, [files, by])


def steps(arrays):
    """Return the sample ids of each step of a worker."""
    numbered = (arrays.get(f"step {i}") for i in itertools.count())
    return list(itertools.takewhile(lambda ids: ids is not None, numbered))


# Sharded by file, 2 workers have 24 and 23 samples, 3 have 16, 16 and 15.
@pytest.mark.long
@pytest.mark.parametrize("by", ["element", "file"])
@pytest.mark.parametrize("count", [2, 3])
def test_each_sample_once_per_epoch_and_the_update_of_one_process(tmp_path, count, by):
    counts = 9, 8, 7, 7, 8, 8
    workers = results(tmp_path, train(tmp_path, count, counts, by))
    parts = list(zip(*map(steps, workers), strict=True))
    assert len(parts) % shards.EPOCHS == 0
    for epoch in range(shards.EPOCHS):
        length = len(parts) // shards.EPOCHS
        of_epoch = parts[epoch * length : (epoch + 1) * length]
        ids = np.concatenate([ids for step in of_epoch for ids in step])
        assert sorted(ids) == list(range(sum(counts)))
        if by == "file":
            files = np.repeat(np.arange(len(counts)), counts)
            for index, ids in enumerate(zip(*of_epoch, strict=True)):
                assert set(files[np.concatenate(ids)] % count) == {index}
    weights, logs = train_alone(parts, samples=shards.samples(sum(counts)))
    for worker in workers:
        for i, value in enumerate(weights):
            np.testing.assert_allclose(worker[f"weight {i}"], value, atol=1e-5)
        for name, mean in logs.items():
            np.testing.assert_allclose(worker[name].mean(), mean, rtol=1e-4)


def train_alone(parts, samples):
    """Train one process on the workers' batches, concatenated."""
    distiller, sums = shards.make(), {}
    for step in parts:
        batch = samples[np.concatenate(step)]
        inputs = {"image": batch.images, "sample_id": batch.ids}
        distiller.reset_metrics()
        logs = distiller.train_on_batch(inputs, batch.labels, return_dict=True)
        for name, mean in logs.items():
            sums[name] = sums.get(name, 0.0) + mean * len(batch)
    count = len(samples) * shards.EPOCHS
    return shards.weights(distiller), {name: x / count for name, x in sums.items()}


@pytest.mark.long
@pytest.mark.parametrize(
    ("by", "counts", "message"),
    [
        ("file", (24, 6), "ValueError: A replica got no samples"),
        ("file", (24,), "Could not apply FILE based sharding"),
        ("array", (24,), "ValueError: Each worker takes its part of the data"),
    ],
    ids=["a short file", "too few files", "shuffled by fit"],
)
def test_data_that_cannot_be_sharded_ends_all_workers(tmp_path, by, counts, message):
    workers = train(tmp_path, 2, counts, by)
    assert all(worker.wait(timeout=120) == 1 for worker in workers)
    logs = [(tmp_path / f"{index}.log").read_text() for index in range(2)]
    assert any(message in log for log in logs)
