"""Time of a training step with each method, relative to a step of the student alone.

    taskset -c 1 python benchmarks/loss_time.py

The methods are those of `examples/compare.py`; for methods with several stages, the first
one. A ResNet-8 learns from a ResNet-20 with 16 channels, on batches of 64 images of 32x32,
in one process that alternates between method, student alone and teacher. The table has
the median ratio to the student's step, with the middle half of the rounds, and the median
ratio to the student's step plus the teacher's forward pass: 1 if the loss costs nothing.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

import keras_distill as kd

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
import compare

STEPS, ROUNDS, SIZE = 8, 7, 32
SMOKE_METHODS = "KD,AT"


def images(steps):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(steps * compare.BATCH, SIZE, SIZE, 1)).astype("float32")
    samples = kd.data.Samples(x, rng.integers(0, 10, len(x)).astype("int32"))
    return kd.data.ImageSet("digits", samples, samples, classes=10)


def ready(model, data):
    """Return a function that runs all steps, after a first run."""
    ids = getattr(model, "sample_ids", None) is not None
    train = kd.data.batches(data.train, compare.BATCH, sample_ids=ids)
    labels = getattr(model, "label_source", 1.0) > 0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss if labels else None)

    def run():
        model.fit(train, verbose=0)

    run()
    return run


def first_stage(method, teacher):
    stages = method(teacher) if callable(method) else method
    return stages if isinstance(stages, Mapping) else stages[0]


def seconds(runs, rounds):
    measured = [[] for _ in runs]
    for _ in range(rounds):
        for run, times in zip(runs, measured, strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return np.array(measured)


def rows(data, names, rounds):
    methods = compare.every_method(data, 1)
    teacher = compare.net(data, 0, compare.NETS["teacher"])
    alone = ready(compare.net(data, 1, compare.NETS["student"]), data)
    forward = tf.function(lambda x: teacher(x, training=False))
    batches = kd.data.batches(data.train, compare.BATCH)

    def infer():
        for x, _ in batches:
            forward(x)

    infer()
    for name in names or [name for name, method in methods.items() if method]:
        student = compare.net(data, 1, compare.NETS["student"])
        stage = first_stage(methods[name], teacher)
        distiller = kd.Distiller(student, **{"teacher": teacher, **stage})
        step, inference, times = seconds([alone, infer, ready(distiller, data)], rounds)
        low, median, high = np.percentile(times / step, [25, 50, 75])
        both = np.median(times / (step + inference))
        print(f"{name}: {median:.2f}", flush=True)
        yield {
            "method": name,
            "ratio to student alone": f"{median:.2f}",
            "middle half": f"{low:.2f} to {high:.2f}",
            "ratio to student and teacher": f"{both:.2f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="", help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    steps, rounds = (1, 1) if args.smoke else (STEPS, args.rounds)
    names = SMOKE_METHODS if args.smoke else args.methods
    table = []
    for row in rows(images(steps), [n for n in names.split(",") if n], rounds):
        table.append(row)
        if args.json:
            args.json.write_text(json.dumps(table, indent=1))
    print(kd.analysis.table(table))


if __name__ == "__main__":
    main()
