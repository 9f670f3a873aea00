"""What a step of every method costs against the student's own step.

    taskset -c 1 python benchmarks/loss_time.py

The methods are those of `examples/compare.py`, of several stages the first. In one
process, a ResNet-8 from a ResNet-20, 16 channels, on batches of 64 images of 32x32:
each method and the student alone in turn; the table shows the median ratio and the
span of the middle half of the rounds. "plus teacher" is that over the sum of the
student's own step and the teacher's pass: 1 is a loss that costs nothing.
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
from step_time import untuned

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
    """Give a function that takes all steps once; it has been called."""
    ids = getattr(model, "sample_ids", None) is not None
    train = untuned(kd.data.batches(data.train, compare.BATCH, sample_ids=ids))
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
    found = [[] for _ in runs]
    for _ in range(rounds):
        for run, own in zip(runs, found, strict=True):
            start = time.perf_counter()
            run()
            own.append(time.perf_counter() - start)
    return np.array(found)


def rows(data, names, rounds):
    methods = compare.every_method(data, 1)
    teacher = compare.net(data, 0, compare.NETS["teacher"])
    alone = ready(compare.net(data, 1, compare.NETS["student"]), data)
    forward = tf.function(lambda x: teacher(x, training=False))
    batches = untuned(kd.data.batches(data.train, compare.BATCH))

    def taught():
        for x, _ in batches:
            forward(x)

    taught()
    for name in names or [name for name, method in methods.items() if method]:
        student = compare.net(data, 1, compare.NETS["student"])
        stage = first_stage(methods[name], teacher)
        distiller = kd.Distiller(student, **{"teacher": teacher, **stage})
        own, known, found = seconds([alone, taught, ready(distiller, data)], rounds)
        low, middle, high = np.percentile(found / own, [25, 50, 75])
        print(f"{name}: {middle:.2f}", flush=True)
        yield {
            "method": name,
            "of student alone": f"{middle:.2f}",
            "middle half": f"{low:.2f} to {high:.2f}",
            "plus teacher": f"{np.median(found / (own + known)):.2f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="", help="names, by commas. Default: all")
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
