"""Inference time of frozen teachers relative to the original teacher.

    python benchmarks/frozen_teacher.py
    KERAS_BACKEND=jax python benchmarks/frozen_teacher.py

The teacher, a frozen copy, and one frozen in bfloat16, each also in four portions of the
batch (`kd.Teacher(portions=)`), infer the same batch in one process, alternating, compiled
if the backend compiles. The table has medians of milliseconds and of the ratio to the
teacher, with the middle half of the rounds. Use `taskset -c 0` for a single core.
TensorFlow uses oneDNN only on CPUs with AVX-512, or with `TF_ENABLE_ONEDNN_OPTS=1`;
bfloat16 is fast on CPUs with instructions for it.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np

import keras_distill as kd

ROUNDS, PORTIONS = 30, 4
NETS = {
    "resnet20": lambda: kd.models.resnet((32, 32, 3), 10, depth=20, width=16),
    "wide resnet 16-2": lambda: kd.models.wide_resnet((32, 32, 3), 10, depth=16),
    "MobileNetV2": lambda: keras.applications.MobileNetV2((96, 96, 3), weights=None),
}
BATCHES = {"resnet20": 128, "wide resnet 16-2": 128, "MobileNetV2": 32}


def inference(teacher, images):
    """Return a function that infers the batch and waits for the result."""
    logits = kd.Tap("logits")

    def infer(images):
        return teacher(images, [logits])[logits]

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        infer = tf.function(infer)
    elif backend == "jax":
        import jax

        infer = jax.jit(infer)
    else:
        import torch

        infer = torch.no_grad()(infer)
    return lambda: keras.ops.convert_to_numpy(keras.ops.cast(infer(images), "float32"))


def measure(name, batch, rounds):
    """Return the seconds of each round, by variant."""
    keras.utils.set_random_seed(0)
    teacher = NETS[name]()
    shape = batch, *teacher.input_shape[1:]
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    images = keras.ops.convert_to_tensor(images)
    frozen = kd.freeze(teacher, images[:8])
    in_bfloat16 = kd.freeze(teacher, images[:8], dtype="bfloat16")
    teachers = {
        "plain": kd.Teacher(teacher),
        "plain, in portions": kd.Teacher(teacher, portions=PORTIONS),
        "frozen": kd.Teacher(frozen),
        "frozen, in portions": kd.Teacher(frozen, portions=PORTIONS),
        "frozen in bfloat16": kd.Teacher(in_bfloat16),
        "that in portions": kd.Teacher(in_bfloat16, portions=PORTIONS),
    }
    runs = {variant: inference(each, images) for variant, each in teachers.items()}
    for run in runs.values():
        run()
        run()
    seconds = {variant: [] for variant in runs}
    for index in range(rounds):
        order = list(runs) if index % 2 else list(runs)[::-1]
        for variant in order:
            start = time.perf_counter()
            runs[variant]()
            seconds[variant].append(time.perf_counter() - start)
    return seconds


def rows(name, batch, seconds):
    plain = np.array(seconds["plain"])
    for variant, times in seconds.items():
        low, median, high = np.percentile(np.array(times) / plain, [25, 50, 75])
        yield {
            "teacher": name,
            "batch": batch,
            "variant": variant,
            "ms": round(1e3 * float(np.median(times)), 1),
            "ratio to plain": f"{median:.3f}",
            "middle half": f"{low:.3f} to {high:.3f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    names, turns = (["resnet20"], 1) if args.smoke else (NETS, ROUNDS)
    table = []
    for name in names:
        batch = 2 if args.smoke else BATCHES[name]
        table += rows(name, batch, measure(name, batch, turns))
    print(kd.analysis.table(table))
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
