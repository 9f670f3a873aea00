"""Time of `fit` with TensorFlow's tuning of parallel calls, relative to without it.

    taskset -c 1 python benchmarks/epoch_end.py

A `tf.data.Dataset` has a thread that tunes numbers of parallel calls and sleeps between,
10 ms at first and then always twice as long. Where the end of an iterator waits for it, an
epoch takes until it wakes. A ResNet-8 is trained for three epochs of 20 batches of 128
images, from arrays and from a `tf.data.Dataset`, in turn. The table has the median and the
range of the ratios to the same dataset without tuning, of the same round.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

import keras_distill as kd

BATCH, STEPS, EPOCHS, ROUNDS = 128, 20, 3, 6


def sources(steps):
    """Return what `fit` may be given, by name: the same batches."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * BATCH, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, len(x))
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    return {
        "arrays": {"x": x, "y": y, "batch_size": BATCH},
        "tf.data.Dataset": {"x": dataset},
        "without tuning": {"x": dataset.with_options(options)},
    }


def seconds(steps, epochs, rounds):
    """Return the seconds of each `fit`, by source and round, after a first round."""
    model = kd.models.resnet((32, 32, 3), 10, depth=8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    measured = {name: [] for name in sources(1)}
    for _ in range(rounds + 1):
        for name, data in sources(steps).items():
            start = time.perf_counter()
            model.fit(**data, epochs=epochs, shuffle=False, verbose=0)
            measured[name].append(time.perf_counter() - start)
    return {name: np.array(times[1:]) for name, times in measured.items()}


def rows(measured):
    for name, times in measured.items():
        ratios = times / measured["without tuning"]
        yield {
            "data": name,
            "s": f"{np.median(times):.1f}",
            "ratio to without tuning": f"{np.median(ratios):.2f}",
            "range": f"{ratios.min():.2f} to {ratios.max():.2f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    sizes = (1, 1, 1) if args.smoke else (STEPS, EPOCHS, args.rounds)
    table = list(rows(seconds(*sizes)))
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))
    print(kd.analysis.table(table))


if __name__ == "__main__":
    main()
