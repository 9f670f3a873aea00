"""Caching the teacher's outputs: bytes, throughput, and time of a training step.

    taskset -c 1 python benchmarks/teacher_cache.py

For predictions of 1,000 classes, with the top 32 and with all logits in float16: bytes per
sample, samples written per second, samples read per second in random order, and bytes
verified per second when the cache is opened; and the cost of larger data sets, computed
from these results. For a pair of conv nets and a pair of MLPs: milliseconds per step of the
student's own `fit`, and of `Distiller.fit` from the cache and with the teacher, alternating,
from the end of the first step of an epoch to the end of its last; medians, and ratios to the
student alone with the middle half of the rounds.
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
# Numbers of images, and an assumed throughput of the teacher in images per second.
SETS = {"ImageNet-1k": 1_281_167, "ImageNet-22k": 14_197_122, "a billion": 10**9}
TEACHER_RATE = 1000


def storage(name, folder, samples, **form):
    """Write and read the predictions of a small network with many classes."""
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
    verified = size / (time.perf_counter() - start)
    cached.read([0])
    rates = []
    for _ in range(5):
        order = rng.permutation(samples)
        start = time.perf_counter()
        for begin in range(0, samples, READ_BATCH):
            cached.read(order[begin : begin + READ_BATCH])
        rates.append(samples / (time.perf_counter() - start))
    return {
        "kept": name,
        "bytes per sample": f"{cached.bytes_per_sample:.1f}",
        "nats from full": f"{cached.distance:.1e}",
        "written per second": round(written, -3),
        "read per second": round(float(np.median(rates)), -3),
        "GB verified per second": round(verified / 1e9, 2),
    }


def joined(kind, folder, samples):
    """Return a distiller and batches joined with the cached predictions of its teacher."""
    student, teacher = step_time.pair(kind)
    cached = kd.CachedTeacher(folder, teacher).build(samples, verbose=0)
    train = kd.data.batches(samples, step_time.BATCH[kind], sample_ids=True)
    distiller = kd.Distiller(student, cached, student_inputs="image", label_weight=0.1)
    return step_time.compiled(distiller), cached.join(train)


class StepTimes(keras.callbacks.Callback):
    """Record the end of each step, without the beginning of the epoch."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())


def steps(kind, folder, count, rounds):
    """Return the seconds per step of each round, by variant."""
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
            model.fit(train, verbose=0, callbacks=[times])
            seconds[name].append((times.ends[-1] - times.ends[0]) / (count - 1))
    return {name: np.array(times[1:]) for name, times in seconds.items()}


def rows(kind, seconds):
    for name, times in seconds.items():
        ratios = times / seconds["student alone"]
        low, median, high = np.percentile(ratios, [25, 50, 75])
        yield {
            "nets": kind,
            "step": name,
            "ms": f"{1e3 * np.median(times):.2f}",
            "ratio to student alone": f"{median:.3f}",
            "middle half": f"{low:.3f} to {high:.3f}",
        }


def scale(kept):
    """Return the cost of larger data sets, computed from the measured results."""
    size, read = float(kept["bytes per sample"]), kept["read per second"]
    rate = kept["GB verified per second"]
    for name, images in SETS.items():
        yield {
            "images": name,
            "GB per view": f"{size * images / 1e9:,.2f}",
            "core seconds to read an epoch": f"{images / read:,.0f}",
            "seconds to verify": f"{size * images / 1e9 / rate:,.1f}",
            f"teacher hours per view at {TEACHER_RATE:,} images/s": (
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
        table = [
            row
            for kind, count in counts.items()
            for row in rows(kind, steps(kind, folder / kind, count, rounds[kind]))
        ]
    finally:
        shutil.rmtree(folder)
    print(f"\n{kd.analysis.table(table)}")
    if args.json:
        args.json.write_text(json.dumps({"kept": kept, "steps": table}, indent=1))


if __name__ == "__main__":
    main()
