"""Memory and open files of a process over 50 caches, and over 2,000 steps.

    KERAS_BACKEND=jax python benchmarks/flat_memory.py --json memory.json

Each cache is built, read, joined in memory and then batch by batch from disk, and
dropped; in the next part a new distiller is trained for three steps from each join, and
in the last a new student alone, whose growth is Keras's own. The steps are those of one
distiller with a soft target and two terms on layers. The table has the resident memory,
the number of open files, and how many readers of caches are still alive.
"""

import argparse
import gc
import json
import os
import pathlib
import tempfile
import weakref

import keras
import numpy as np

import keras_distill as kd
from keras_distill.teachers.cache import joining
from keras_distill.teachers.cache.reading import Reader

CACHES, OF_CACHES = 50, 10
STEPS, OF_STEPS = 2000, 200
SAMPLES, BATCH = 320, 16
LIMITS = joining.LIMIT, 0


def net(name, width):
    """Create a small network with layers `stack1` to `stack3` and `logits`."""
    filters = (width, width, width)
    return kd.models.conv_net((8, 8, 1), 10, filters=filters, name=name)


def samples():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(SAMPLES, 8, 8, 1)).astype("float32")
    return kd.data.Samples(images, rng.integers(0, 10, SAMPLES))


def compiled(distiller):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss)
    return distiller


def resident_bytes():
    fields = pathlib.Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(part, done, readers=()):
    """Return a row of the table."""
    gc.collect()
    return {
        "part": part,
        "after": done,
        "resident, MB": round(resident_bytes() / 1e6, 1),
        "open files": len(os.listdir("/proc/self/fd")),
        "readers alive": sum(reader() is not None for reader in readers),
    }


def use_cache(folder, data, teacher, trains):
    """Build a cache, read it, join it both ways, and read or train from it."""
    cached = kd.CachedTeacher(folder, teacher, top_k=3, temperature=4.0)
    cached.build(data, shard_rows=40, verbose=0)
    cached.read(data.ids)
    for limit in LIMITS:
        joining.LIMIT = limit
        train = cached.join(kd.data.batches(data, BATCH, sample_ids=True))
        if trains:
            student = net("student", 4)
            fit(kd.Distiller(student, cached, student_inputs="image"), train)
        else:
            for _ in train:
                pass


def fit(model, data):
    compiled(model).fit(data, steps_per_epoch=3, epochs=1, verbose=0)


def use_no_cache(folder, data, teacher):
    """Train a student alone, as often as `use_cache` trains one."""
    for _ in LIMITS:
        fit(net("student", 4), kd.data.batches(data, BATCH))


PARTS = {
    "caches": lambda *given: use_cache(*given, trains=False),
    "caches that train": lambda *given: use_cache(*given, trains=True),
    "students alone": use_no_cache,
}


def rows_of_caches(part, count, every):
    data, teacher = samples(), net("teacher", 8)
    readers, create = [], Reader.__init__

    def noted(reader, *arguments):
        create(reader, *arguments)
        readers.append(weakref.ref(reader))

    Reader.__init__ = noted
    for number in range(count + 1):
        if number % every == 0:
            yield measured(part, number, readers)
        if number < count:
            with tempfile.TemporaryDirectory() as folder:
                PARTS[part](folder, data, teacher)
            keras.backend.clear_session()
    Reader.__init__ = create


class Measured(keras.callbacks.Callback):
    """Measures every few steps."""

    def __init__(self, every):
        super().__init__()
        self.every, self.rows, self.done = every, [], 0

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        if self.done % self.every == 0:
            self.rows.append(measured("steps", self.done))


def rows_of_steps(count, every):
    data = samples()
    terms = [
        kd.Term(kd.losses.SoftTarget()),
        kd.Term(kd.losses.Hint(), "stack2", "stack2"),
        kd.Term(kd.losses.AttentionMap(), "stack3", "stack3"),
    ]
    distiller = compiled(
        kd.Distiller(net("student", 4), net("teacher", 8), terms=terms)
    )
    measure, epochs = Measured(every), -(-count * BATCH // SAMPLES)
    x, y = data.images, data.labels
    distiller.fit(x, y, BATCH, epochs=epochs, verbose=0, callbacks=[measure])
    return measure.rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    caches, steps = (CACHES, OF_CACHES), (STEPS, OF_STEPS)
    if args.smoke:
        caches, steps = (2, 1), (4, 2)
    rows = rows_of_steps(*steps)
    for part in PARTS:
        rows += rows_of_caches(part, *caches)
    print(kd.analysis.table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
