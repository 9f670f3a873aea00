"""What a teacher that is paid for once costs: bytes, reads, and a step of training.

    taskset -c 1 python benchmarks/teacher_cache.py

Of predictions of 1,000 classes: the bytes a sample, rows written and samples read a
second, in random order, and how fast a cache is checked when it is opened, with the top
32 and with all logits in float16; and from these figures what larger sets cost. Of a pair of
conv nets and one of MLPs: milliseconds of a step of the student's own `fit`, of
`Distiller.fit` from the cache and with the teacher itself, in turn, from the end of an
epoch's first step to that of its last; medians and ratios to the student's own, with the
span of the middle half of the rounds.
"""

import argparse
import json
import pathlib
import shutil
import tempfile
import time

import keras
import numpy as np
import step_time

import keras_distill as kd

SAMPLES, CLASSES, TOP, READ_BATCH = 200_000, 1000, 32, 256
ROUNDS, STEPS = {"conv": 9, "mlp": 25}, {"conv": 8, "mlp": 150}
# Images, and a teacher's images a second, which is assumed.
SETS = {"ImageNet-1k": 1_281_167, "ImageNet-22k": 14_197_122, "a billion": 10**9}
TEACHER_RATE = 1000


def storage(name, folder, samples, **form):
    """Write and read the predictions of a small net of many classes."""
    inputs = keras.Input((16,))
    teacher = keras.Model(inputs, keras.layers.Dense(CLASSES)(inputs))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 16)).astype("float32")
    cached = kd.CachedTeacher(folder, teacher, **form)
    data = kd.data.Samples(x, np.zeros(samples, "int32"))
    start = time.perf_counter()
    cached.build(data, 1024, verbose=0)
    written = samples / (time.perf_counter() - start)
    size = cached.bytes_per_sample * samples
    start = time.perf_counter()
    kd.CachedTeacher(folder).read([0])
    checked = size / (time.perf_counter() - start)
    cached.read([0])
    rates = []
    for _ in range(5):
        order = rng.permutation(samples)
        start = time.perf_counter()
        for place in range(0, samples, READ_BATCH):
            cached.read(order[place : place + READ_BATCH])
        rates.append(samples / (time.perf_counter() - start))
    return {
        "kept": name,
        "bytes a sample": f"{cached.bytes_per_sample:.1f}",
        "nats from full": f"{cached.distance:.1e}",
        "written a second": round(written, -3),
        "read a second": round(float(np.median(rates)), -3),
        "GB checked a second": round(checked / 1e9, 2),
    }


def joined(kind, folder, samples):
    """Give a distiller and batches that carry what its teacher said."""
    student, teacher = step_time.pair(kind)
    cached = kd.CachedTeacher(folder, teacher).build(samples, verbose=0)
    train = kd.data.batches(samples, step_time.BATCH[kind], sample_ids=True)
    distiller = kd.Distiller(student, cached, student_inputs="image", label_weight=0.1)
    return step_time.compiled(distiller), cached.join(train)


class StepTimes(keras.callbacks.Callback):
    """Notes when each step is over: what begins an epoch is no step."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())


def steps(kind, folder, count, rounds):
    """Give seconds a step of each variant, a round after the other."""
    rng = np.random.default_rng(0)
    student, _ = step_time.pair(kind)
    shape = count * step_time.BATCH[kind], *student.input_shape[1:]
    labels = rng.integers(0, 10, shape[0]).astype("int32")
    samples = kd.data.Samples(rng.normal(size=shape).astype("float32"), labels)
    plain = kd.data.batches(samples, step_time.BATCH[kind])
    distiller = kd.Distiller(*step_time.pair(kind), label_weight=0.1)
    models = {
        "student alone": (step_time.compiled(student), plain),
        "from the cache": joined(kind, folder, samples),
        "with the teacher": (step_time.compiled(distiller), plain),
    }
    seconds = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name in models if turn % 2 else reversed(models):
            model, train = models[name]
            times = StepTimes()
            model.fit(step_time.untuned(train), verbose=0, callbacks=[times])
            seconds[name].append((times.ends[-1] - times.ends[0]) / (count - 1))
    return {name: np.array(found[1:]) for name, found in seconds.items()}


def rows(kind, seconds):
    for name, found in seconds.items():
        low, middle, high = np.percentile(
            found / seconds["student alone"], [25, 50, 75]
        )
        yield {
            "nets": kind,
            "step": name,
            "ms": f"{1e3 * np.median(found):.2f}",
            "of student alone": f"{middle:.3f}",
            "middle half": f"{low:.3f} to {high:.3f}",
        }


def scale(kept):
    """Give what the top classes of larger sets cost, from what was measured."""
    size, read = float(kept["bytes a sample"]), kept["read a second"]
    for name, images in SETS.items():
        yield {
            "images": name,
            "GB a view": f"{size * images / 1e9:,.2f}",
            "core seconds to read an epoch": f"{images / read:,.0f}",
            "seconds to check": f"{size * images / 1e9 / kept['GB checked a second']:,.1f}",
            f"teacher hours a view at {TEACHER_RATE:,} images/s": (
                f"{images / TEACHER_RATE / 3600:,.1f}"
            ),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    samples, counts, rounds = SAMPLES, STEPS, ROUNDS
    if args.smoke:
        samples = 2000
        counts, rounds = (dict.fromkeys(STEPS, number) for number in (3, 1))
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        top = {"top_k": TOP, "temperature": 4.0}
        kept = [
            storage(f"top {TOP}", folder / "top", samples, **top),
            storage("float16", folder / "all", samples // 10),
        ]
        print(
            kd.analysis.table(kept), kd.analysis.table(list(scale(kept[0]))), sep="\n\n"
        )
        taken = [
            row
            for kind, count in counts.items()
            for row in rows(kind, steps(kind, folder / kind, count, rounds[kind]))
        ]
    finally:
        shutil.rmtree(folder)
    print(f"\n{kd.analysis.table(taken)}")
    if args.json:
        args.json.write_text(json.dumps({"kept": kept, "steps": taken}, indent=1))


if __name__ == "__main__":
    main()
