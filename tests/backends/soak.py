"""Train 2,000 steps; print the growth of memory and how often the step was traced.

KERAS_BACKEND=jax python tests/backends/soak.py Distiller
"""

import gc
import json
import os
import sys

import keras
import numpy as np

import keras_distill as kd
from tests.nets import conv_pair

BATCHES, EPOCHS, BATCH = 40, 50, 8


def resident_bytes():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class RecordMemory(keras.callbacks.Callback):
    """Record the resident memory at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.bytes = []

    def on_epoch_end(self, epoch, logs=None):
        self.bytes.append(resident_bytes())


def of_terms():
    """Create a distiller with schedules, and terms that keep memory or gradients."""
    rising = keras.optimizers.schedules.PolynomialDecay(0.1, 1000, 1.0)
    contrast = kd.losses.Contrastive(BATCHES * BATCH, negatives=32, width=8)
    terms = [
        kd.Term(kd.losses.SoftTarget(rising), weight=rising),
        kd.Term(kd.losses.Hint(), "stack2", "stack2"),
        kd.Term(kd.losses.DistanceRelation(), "stack2", "stack2"),
        kd.Term(
            kd.losses.GradientAttention(),
            kd.Tap.input_gradient(),
            kd.Tap.input_gradient(),
        ),
        kd.Term(contrast, "stack2", "stack2"),
    ]
    inputs = {"student_inputs": "image", "teacher_inputs": "image"}
    student, teacher = conv_pair()
    return kd.Distiller(student, teacher, terms=terms, sample_ids="id", **inputs)


def following():
    student, _ = conv_pair()
    return kd.Distiller(student, kd.MeanTeacher(student), **IMAGE)


DISTILLERS = {
    "Distiller": of_terms,
    "MeanTeacher": following,
    "MutualDistiller": lambda: kd.MutualDistiller(conv_pair(), peer_inputs="image"),
    "codistillation": lambda: kd.MutualDistiller(
        conv_pair(), refresh=7, peer_inputs="image"
    ),
    "SelfDistiller": lambda: kd.SelfDistiller(
        conv_pair()[0], ["stack1"], features="stack2"
    ),
}
IMAGE = {"student_inputs": "image", "teacher_inputs": "image"}


def count_runs(distiller):
    """Return a list that grows with each run of the step in Python."""
    step, runs = distiller.train_step, []

    def train_step(*arguments):
        runs.append(1)
        return step(*arguments)

    distiller.train_step = train_step
    return runs


def main():
    keras.utils.set_random_seed(0)
    kind = sys.argv[1]
    distiller = DISTILLERS[kind]()
    runs = count_runs(distiller)
    distiller.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    rng = np.random.default_rng(0)
    count = BATCHES * BATCH
    images = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    x = {"image": images, "id": np.arange(count)}
    x = images if kind == "SelfDistiller" else x
    y = rng.integers(0, 3, count)
    # What is imported stays; each collection would visit it.
    gc.freeze()
    memory = RecordMemory()
    distiller.fit(x, y, BATCH, epochs=1, verbose=0, callbacks=[memory])
    first = len(runs)
    distiller.fit(x, y, BATCH, epochs=EPOCHS - 1, verbose=0, callbacks=[memory])
    # Backends have allocated what they keep after a few epochs.
    growth = memory.bytes[-1] - memory.bytes[9]
    print(json.dumps({"growth": growth, "runs": len(runs), "first": first}))


if __name__ == "__main__":
    main()
