"""Memory of relation losses and their gradients beyond their inputs.

    python benchmarks/relation_memory.py

Each loss runs in its own process, first on a batch of 8, which loads what it needs, and
then on a batch of 1024. The table has the growth of the peak memory beyond the input
tensors and the returned gradient. The memory bank of the contrastive loss is allocated
before and not counted.

"held" is what the loss holds at the same time, with glibc configured to return freed
blocks to the system. "process" is with glibc's defaults, where each thread keeps freed
blocks for later; it varies between runs by tens of MiB.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_distill as kd

SAMPLES = 5000
LOSSES = {
    "DistanceRelation": {},
    "AngleRelation": {},
    "SimilarityMatrix": {},
    "CorrelationCongruence": {},
    "ConditionalProbability": {},
    "HardRank": {},
    "SoftRank": {},
    "VotedTriplet": {},
    "ClassTriplet": {},
    "Verification": {},
    "Contrastive": {"samples": SAMPLES},
}
BATCH, WIDTH = 1024, 128
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def needed(loss):
    """Return a function from the batch size to what a loss needs besides the tensors."""
    memory = loss.memory()
    if memory is not None:
        memory.build(())
    context = {
        "labels": lambda size: tf.range(size) % 10,
        "sample_ids": tf.range,
        "step": lambda size: tf.constant(0),
        "memory": lambda size: memory,
        "mask": lambda size: None,
        "teacher_mask": lambda size: None,
    }
    return lambda size: {name: context[name](size) for name in loss.needs}


def measure(name, batch):
    """Return the growth of the peak memory from a small to a large batch, in bytes."""
    loss = getattr(kd.losses, name)(**LOSSES[name])
    context = needed(loss)

    @tf.function(reduce_retracing=False)
    def gradient(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student, **context(len(student)))
        return tape.gradient(value, student)

    rng = np.random.default_rng(0)
    for size in (8, batch):
        if name == "Contrastive":
            memory = context(size)["memory"]
            memory.initialized.assign(0.0)
        before = peak_bytes()
        sides = rng.normal(size=(2, size, WIDTH)).astype("float32")
        teacher, student = (tf.constant(side) for side in sides)
        gradient(teacher, student).numpy()
    # The samples in float64, both sides in NumPy and TensorFlow, and the gradient.
    return peak_bytes() - before - sides.nbytes * 4.5


def measure_in_process(name, batch, settings):
    """Measure in a new process; return MiB."""
    command = [sys.executable, __file__, "--loss", name, "--batch", str(batch)]
    environment = {**os.environ, **settings}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    )
    return round(float(done.stdout.split()[-1]) / 2**20)


def row(name, batch):
    return {
        "loss": name,
        "batch": batch,
        "held, MiB": measure_in_process(name, batch, RETURN_FREED),
        "process, MiB": measure_in_process(name, batch, {}),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", choices=LOSSES, help="measure it in this process")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if args.loss:
        keras.utils.set_random_seed(0)
        print(f"bytes {measure(args.loss, args.batch):.0f}")
        return
    names, batch = (list(LOSSES)[:1], 64) if args.smoke else (LOSSES, args.batch)
    rows = [row(name, batch) for name in names]
    print(kd.analysis.table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
