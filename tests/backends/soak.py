"""Train 2,000 steps; print how memory grew and how often the step was traced.

KERAS_BACKEND=jax python tests/backends/soak.py
"""

import gc
import json
import os

import keras
import numpy as np

import keras_distill as kd
from tests.distillers.conftest import conv_pair

BATCHES, EPOCHS, BATCH = 40, 50, 8


def resident_bytes():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch(keras.callbacks.Callback):
    """Note memory at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.bytes = []

    def on_epoch_end(self, epoch, logs=None):
        self.bytes.append(resident_bytes())


class Counted(kd.Distiller):
    """Count how often Python runs the step."""

    runs = 0

    def train_step(self, *arguments):
        Counted.runs += 1
        return super().train_step(*arguments)


def main():
    keras.utils.set_random_seed(0)
    student, teacher = conv_pair()
    rising = keras.optimizers.schedules.PolynomialDecay(0.1, 1000, 1.0)
    contrast = kd.losses.Contrastive(BATCHES * BATCH, negatives=32, width=8)
    terms = [
        kd.Term(kd.losses.SoftTarget(rising), weight=rising),
        kd.Term(kd.losses.Hint(), "stack2", "stack2"),
        kd.Term(kd.losses.DistanceRelation(), "stack2", "stack2"),
        kd.Term(kd.losses.GradientAttention(), "label_gradient", "label_gradient"),
        kd.Term(contrast, "stack2", "stack2"),
    ]
    inputs = {"student_inputs": "image", "teacher_inputs": "image"}
    distiller = Counted(student, teacher, terms=terms, sample_ids="id", **inputs)
    distiller.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    rng = np.random.default_rng(0)
    count = BATCHES * BATCH
    images = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    x = {"image": images, "id": np.arange(count)}
    y = rng.integers(0, 3, count)
    watch = Watch()
    distiller.fit(x, y, BATCH, epochs=1, verbose=0, callbacks=[watch])
    first = Counted.runs
    distiller.fit(x, y, BATCH, epochs=EPOCHS - 1, verbose=0, callbacks=[watch])
    # What backends set aside once is there after a few epochs.
    growth = watch.bytes[-1] - watch.bytes[9]
    print(json.dumps({"growth": growth, "runs": Counted.runs, "first": first}))


if __name__ == "__main__":
    main()
