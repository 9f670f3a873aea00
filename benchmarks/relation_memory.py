"""How much memory a relation loss takes beyond its inputs, gradient included.

    python benchmarks/relation_memory.py

Each loss runs in a process of its own, first on a batch of 8, which loads all that it
needs, then on one of 1024; the table shows by how much the peak of the process grew
beyond the tensors that go in and the gradient that comes out. The bank of the
contrastive loss is there before and not counted.

"held" is what the loss holds at once: glibc is told to give freed blocks back. "process"
is with glibc's own settings, by which each thread keeps what it freed for later; it
differs from run to run by some tens of MiB.
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
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def asked(loss):
    """Give a function of the batch's size: what a loss asks for beside the tensors."""
    memory = loss.memory()
    if memory is not None:
        memory.build(())
    known = {
        "labels": lambda size: tf.range(size) % 10,
        "sample_ids": tf.range,
        "step": lambda size: tf.constant(0),
        "memory": lambda size: memory,
    }
    return lambda size: {name: known[name](size) for name in loss.needs}


def measure(name, batch):
    """Give the bytes by which the peak grows from a small batch to a large one."""
    loss = getattr(kd.losses, name)(**LOSSES[name])
    context = asked(loss)

    @tf.function(reduce_retracing=False)
    def slope(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student, **context(len(student)))
        return tape.gradient(value, student)

    rng = np.random.default_rng(0)
    for size in (8, batch):
        if name == "Contrastive":
            memory = context(size)["memory"]
            memory.known.assign(0.0)
        before = peak_bytes()
        sides = rng.normal(size=(2, size, WIDTH)).astype("float32")
        teacher, student = (tf.constant(side) for side in sides)
        slope(teacher, student).numpy()
    # The drawing in float64, both sides in NumPy and TensorFlow, and the gradient.
    return peak_bytes() - before - sides.nbytes * 4.5


def measured_apart(name, batch, settings):
    """Measure in a new process; give MiB."""
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
        "held, MiB": measured_apart(name, batch, GIVE_BACK),
        "process, MiB": measured_apart(name, batch, {}),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", choices=LOSSES, help="measure one, in this process")
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
