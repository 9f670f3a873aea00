"""What a step of `Distiller` costs beside the same arithmetic written by hand.

    python benchmarks/step_time.py

In one process and in turn: the student's own `fit`, a hand-written `tf.function` loop
that does what the distiller does, and `Distiller.fit`; for soft targets alone and with
three tapped layers. The table shows medians of seconds a step and ratios to the
hand-written loop, with the span of the middle half of the rounds.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

import keras_distill as kd

STACKS = ("stack1", "stack2", "stack3")
BATCH, STEPS, ROUNDS = 128, 20, 15


def nets():
    keras.utils.set_random_seed(0)
    shape = 32, 32, 3
    student = kd.models.resnet(shape, 10, depth=8, width=16, name="student")
    return student, kd.models.resnet(shape, 10, depth=20, width=16, name="teacher")


def terms(taps):
    found = [kd.Term(kd.losses.SoftTarget(4.0), weight=0.9)]
    for stack in taps:
        found.append(kd.Term(kd.losses.Hint(), stack, stack, 1.0, name=f"hint_{stack}"))
    return found


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return model


def by_hand(student, teacher, taps):
    """Give a function that takes one step, written out."""

    def with_taps(net):
        outputs = [net.get_layer(name).output for name in taps]
        return keras.Model(net.inputs, [net.output, *outputs])

    student, teacher = with_taps(student), with_taps(teacher)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(student.trainable_variables)
    mean = keras.metrics.Mean()

    @tf.function
    def step(x, y):
        z_t, *known = keras.tree.flatten(teacher(x, training=False))
        with tf.GradientTape() as tape:
            z_s, *seen = keras.tree.flatten(student(x, training=True))
            labels = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z_s)
            p, log_p = tf.nn.softmax(z_t / 4), tf.nn.log_softmax(z_t / 4)
            gap = log_p - tf.nn.log_softmax(z_s / 4)
            loss = 0.1 * tf.reduce_mean(labels)
            loss += 0.9 * 16 * tf.reduce_mean(tf.reduce_sum(p * gap, -1))
            for a, b in zip(seen, known, strict=True):
                loss += 0.5 * tf.reduce_mean(tf.square(a - b))
        slopes = tape.gradient(loss, student.trainable_variables)
        optimizer.apply(slopes, student.trainable_variables)
        mean.update_state(loss)

    return step


def variants(taps, train):
    """Give a function for each variant that takes all steps of `train` once."""
    alone, _ = nets()
    student, teacher = nets()
    step = by_hand(student, teacher, taps)
    distiller = compiled(kd.Distiller(*nets(), terms=terms(taps), label_weight=0.1))
    compiled(alone)

    def loop():
        for x, y in train:
            step(x, y)

    return {
        "student alone": lambda: alone.fit(train, verbose=0),
        "by hand": loop,
        "Distiller": lambda: distiller.fit(train, verbose=0),
    }


def measure(taps, steps, rounds):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * BATCH, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, len(x))
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, True).cache()
    runs = variants(taps, train.prefetch(2))
    for run in runs.values():
        run()
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def rows(name, seconds):
    floor = np.array(seconds["by hand"])
    for variant, found in seconds.items():
        low, middle, high = np.percentile(np.array(found) / floor, [25, 50, 75])
        yield {
            "terms": name,
            "variant": variant,
            "ms a step": round(1e3 * float(np.median(found)), 1),
            "of by hand": f"{middle:.3f}",
            "middle half": f"{low:.3f} to {high:.3f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    steps, rounds = (1, 1) if args.smoke else (STEPS, ROUNDS)
    table = []
    for name, taps in {"soft targets": (), "and three layers": STACKS}.items():
        table += rows(name, measure(taps, steps, rounds))
    print(kd.analysis.table(table))
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
