"""Time of a training step of `Distiller`, relative to the same step written by hand.

    python benchmarks/step_time.py

One process alternates between the student's own `fit`, a `tf.function` loop written by
hand that computes what the distiller computes, `Distiller.fit`, also with ten steps per
call (`steps_per_execution`), with a frozen teacher, in four portions of the batch and in
bfloat16, and `keras.distillation.Distiller` with `KLDivergence()`; for soft targets alone
and with three tapped layers; for a pair of conv nets, of MLPs and of language models with
32,000 words. The table has medians of milliseconds per step and of the ratio to the loop
by hand of the same round, with the middle half of the rounds.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill.data.batches import without_tuning

STACKS = ("stack1", "stack2", "stack3")
BATCH = {"conv": 128, "mlp": 128, "language": 8}
# Steps per epoch; `fit` takes some 10 ms to begin an epoch.
STEPS = {"conv": 10, "mlp": 200, "language": 10}
ROUNDS, WORDS = 15, 32_000


def conv(teacher):
    depth, name = (20, "teacher") if teacher else (8, "student")
    return kd.models.resnet((32, 32, 3), 10, depth=depth, width=16, name=name)


def mlp(teacher):
    return stacked(keras.Input((784,)), lambda: layers.Dense(400, "relu"), 10, teacher)


def language(teacher):
    inputs = keras.Input((64,), dtype="int32")
    layer = lambda: layers.Conv1D(128, 3, padding="causal", activation="relu")  # noqa: E731
    return stacked(inputs, layer, WORDS, teacher, layers.Embedding(WORDS, 128))


def stacked(inputs, layer, classes, teacher, first=lambda x: x):
    """Return three stacks of one layer each or, for the teacher, of three layers each."""
    x = first(inputs)
    for stack in STACKS:
        for _ in range(2 if teacher else 0):
            x = layer()(x)
        last = layer()
        last.name = stack
        x = last(x)
    name = "teacher" if teacher else "student"
    return keras.Model(inputs, layers.Dense(classes)(x), name=name)


NETS = {"conv": conv, "mlp": mlp, "language": language}


def pair(kind):
    keras.utils.set_random_seed(0)
    return NETS[kind](teacher=False), NETS[kind](teacher=True)


def data(kind, steps):
    rng = np.random.default_rng(0)
    student, _ = pair(kind)
    shape = steps * BATCH[kind], *student.input_shape[1:]
    if kind == "language":
        x = rng.integers(0, WORDS, shape).astype("int32")
        y = rng.integers(0, WORDS, shape)
    else:
        x = rng.normal(size=shape).astype("float32")
        y = rng.integers(0, 10, len(x))
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH[kind], True)
    return without_tuning(train.cache().prefetch(2))


def compiled(model, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, **arguments)
    return model


def distiller(student, teacher, taps):
    terms = [kd.Term(kd.losses.SoftTarget(4.0), weight=0.9)]
    for stack in taps:
        terms.append(kd.Term(kd.losses.Hint(), stack, stack, 1.0, name=f"hint_{stack}"))
    return compiled(kd.Distiller(student, teacher, terms=terms, label_weight=0.1))


def frozen(student, teacher, taps, train, dtype=None, portions=1):
    batch, _ = next(iter(train))
    teacher = kd.freeze(teacher, batch, dtype=dtype)
    return distiller(student, kd.Teacher(teacher, portions=portions), taps)


def keras_distiller(student, teacher, taps):
    """Return Keras's own distiller, with the loss that makes it correct."""
    module = keras.distillation
    losses = [module.LogitsDistillation(4.0, keras.losses.KLDivergence())]
    losses += [module.FeatureDistillation("mse", tap, tap) for tap in taps]
    weights = [1.0, *[0.5 / 0.9] * len(taps)]
    return compiled(
        module.Distiller(teacher, student, losses, weights, student_loss_weight=0.1)
    )


def by_hand(student, teacher, taps):
    """Return a function that runs one step, written by hand."""

    def with_taps(net):
        outputs = [net.get_layer(name).output for name in taps]
        return keras.Model(net.inputs, [net.output, *outputs])

    student, teacher = with_taps(student), with_taps(teacher)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(student.trainable_variables)
    mean = keras.metrics.Mean()

    @tf.function
    def step(x, y):
        z_t, *teacher_features = keras.tree.flatten(teacher(x, training=False))
        with tf.GradientTape() as tape:
            z_s, *features = keras.tree.flatten(student(x, training=True))
            labels = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z_s)
            p, log_p = tf.nn.softmax(z_t / 4), tf.nn.log_softmax(z_t / 4)
            gap = log_p - tf.nn.log_softmax(z_s / 4)
            loss = 0.1 * tf.reduce_mean(labels)
            loss += 0.9 * 16 * tf.reduce_mean(tf.reduce_sum(p * gap, -1))
            for a, b in zip(features, teacher_features, strict=True):
                loss += 0.5 * tf.reduce_mean(tf.square(a - b))
        gradients = tape.gradient(loss, student.trainable_variables)
        optimizer.apply(gradients, student.trainable_variables)
        mean.update_state(loss)

    return step


def variants(kind, taps, train):
    """Return, by variant, a function that creates a function that runs all steps."""

    def looped(step):
        def loop():
            for x, y in train:
                step(x, y)

        return loop

    def fitted(model):
        return lambda: model.fit(train, verbose=0)

    return {
        "student alone": lambda: fitted(compiled(pair(kind)[0])),
        "by hand": lambda: looped(by_hand(*pair(kind), taps)),
        "Distiller": lambda: fitted(distiller(*pair(kind), taps)),
        "Distiller, ten steps per call": lambda: fitted(
            compiled(distiller(*pair(kind), taps), steps_per_execution=10)
        ),
        "Distiller, frozen": lambda: fitted(frozen(*pair(kind), taps, train)),
        "Distiller, frozen, in four portions": lambda: fitted(
            frozen(*pair(kind), taps, train, portions=4)
        ),
        "Distiller, frozen in bfloat16": lambda: fitted(
            frozen(*pair(kind), taps, train, "bfloat16")
        ),
        "Keras's": lambda: fitted(keras_distiller(*pair(kind), taps)),
    }


def measure(kind, taps, steps, rounds):
    made = variants(kind, taps, data(kind, steps))
    runs = {name: make() for name, make in made.items()}
    for run in runs.values():
        run()
    seconds = {name: [] for name in runs}
    for turn in range(rounds):
        names = list(runs)
        for name in names if turn % 2 else reversed(names):
            start = time.perf_counter()
            runs[name]()
            seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def rows(kind, terms, seconds):
    baseline = np.array(seconds["by hand"])
    for variant, times in seconds.items():
        low, median, high = np.percentile(np.array(times) / baseline, [25, 50, 75])
        yield {
            "nets": kind,
            "terms": terms,
            "variant": variant,
            "ms per step": round(1e3 * float(np.median(times)), 1),
            "ratio to by hand": f"{median:.3f}",
            "middle half": f"{low:.3f} to {high:.3f}",
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--nets", default=",".join(NETS), help="some of conv,mlp,language"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    table = []
    for kind in args.nets.split(","):
        terms = {"soft targets": (), "and three layers": STACKS}
        steps, rounds = STEPS[kind], args.rounds
        if args.smoke:
            del terms["soft targets"]
            steps = rounds = 1
        for name, taps in terms.items():
            table += rows(kind, name, measure(kind, taps, steps, rounds))
            if args.json:
                args.json.write_text(json.dumps(table, indent=1))
    print(kd.analysis.table(table))


if __name__ == "__main__":
    main()
