"""Train as one of two workers whose batches have different sizes, and save the weights.

    python -m tests.distribution.shapes RESULT [--kind KIND] [--alone INDEX]

Each worker reads its own data set: maps of different sizes, sequences of different lengths
with masks, or batches of different numbers of samples. With `--alone`, one process trains
on the data of that worker.
"""

import argparse

import keras
import numpy as np

import keras_distill as kd

SAMPLES, TOKENS = (4, 2), (4, 5)


def maps(width):
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(width, 3, padding="same", name="features")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def texts(width):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, width, mask_zero=True)(inputs)
    x = keras.layers.Dense(width, name="features")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def data(kind, index):
    """Return one batch of a worker: inputs and labels."""
    rng = np.random.default_rng(index)
    count = SAMPLES[index]
    if kind == "texts":
        x = rng.integers(1, 9, (count, 5 + 3 * index)).astype("int32")
        x[:, TOKENS[index] :] = 0
    else:
        size = 6 + 4 * index * (kind == "maps")
        x = rng.normal(size=(count, size, size, 1)).astype("float32")
    return x, rng.integers(0, 3, count).astype("int32")


def make(kind):
    keras.utils.set_random_seed(1)
    net = texts if kind == "texts" else maps
    terms = [kd.Term(kd.losses.Hint(), "features", "features", weight=1.0)]
    labels = float(kind != "texts")
    if labels:
        terms.append(kd.Term(kd.losses.SoftTarget(2.0)))
    distiller = kd.Distiller(net(4), net(6), terms=terms, label_weight=labels)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.1), loss if labels else None)
    return distiller


def main():
    import tensorflow as tf

    parser = argparse.ArgumentParser()
    parser.add_argument("result")
    parser.add_argument("--kind", default="maps")
    parser.add_argument("--alone", type=int)
    args = parser.parse_args()
    with kd.strategies.scope("auto"):
        index, _ = kd.strategies.worker()
        index = index if args.alone is None else args.alone
        x, y = data(args.kind, index)
        batch = (x,) if args.kind == "texts" else (x, y)
        batches = own = tf.data.Dataset.from_tensors(batch)
        if args.alone is None:
            # A data set that is passed to `fit` would be divided among the workers.
            strategy = tf.distribute.get_strategy()
            batches = strategy.distribute_datasets_from_function(lambda _: own)
        distiller = make(args.kind)
        logs = distiller.fit(batches, epochs=1, verbose=0).history
    student = distiller.student
    weights = [keras.ops.convert_to_numpy(v) for v in student.variables]
    np.savez(args.result, *weights, loss=logs["loss"])


if __name__ == "__main__":
    main()
