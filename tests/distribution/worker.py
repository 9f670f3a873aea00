"""Train as one of several workers, or alone, and save weights, logs and predictions.

    python -m tests.distribution.worker RESULT [--kind KIND] [--backup FOLDER]
        [--die-at STEP] [--die-writing COUNT]

The environment variable TF_CONFIG names the other workers. With a backup, training
resumes where it stopped; `--die-at` kills the process after that many steps of this run,
`--die-writing` in the middle of writing that backup of this run.
"""

import argparse
import os
import signal

import keras
import numpy as np

import keras_distill as kd
from tests.nets import conv_pair


class Die(keras.callbacks.Callback):
    """Kill the process, as a machine failure would."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def die_writing(count, save=np.savez):
    """Kill the process once half of a file is written."""
    written = 0

    def savez(path, **arrays):
        nonlocal written
        written += 1
        save(path, **arrays)
        if written == count:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    np.savez = savez


def make(noise):
    keras.utils.set_random_seed(1)
    student, teacher = conv_pair(norm=noise)
    if noise:
        student = keras.Model(student.input, keras.layers.Dropout(0.3)(student.output))
    rising = keras.optimizers.schedules.PolynomialDecay(0.1, 12, 1.0)
    relation = kd.losses.SimilarityMatrix()
    terms = [
        kd.Term(kd.losses.SoftTarget(4.0), weight=rising),
        kd.Term(kd.losses.Hint(), student="stack1", teacher="stack2", weight=1.0),
        kd.Term(relation, student="stack2", teacher="stack2", weight=10.0),
    ]
    distiller = kd.Distiller(student, teacher, terms=terms)
    return compiled(distiller)


def mutual():
    """Create two peers that learn from copies of each other, refreshed every 3 steps."""
    keras.utils.set_random_seed(1)
    peers = conv_pair(norm=False)
    soft = kd.Term(kd.losses.SoftTarget(2.0), weight=1.0)
    return compiled(kd.MutualDistiller(peers, [soft], refresh=3))


def own_teacher():
    keras.utils.set_random_seed(1)
    net, _ = conv_pair(norm=False)
    return compiled(kd.SelfDistiller(net, ["stack1", "stack2"]))


KINDS = {"mutual": mutual, "self": own_teacher}


def compiled(distiller):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return distiller


def devices(variable):
    """Return the number of devices of this process that hold a variable."""
    if keras.backend.backend() != "jax":
        return 1
    return len(variable.value.sharding.device_set)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("result")
    parser.add_argument("--kind", default="distiller")
    parser.add_argument("--backup")
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--die-writing", type=int)
    args = parser.parse_args()
    if args.die_writing:
        die_writing(args.die_writing)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 8, 8, 1)).astype("float32")
    samples = kd.data.Samples(x, rng.integers(0, 3, 48).astype("int32"))
    callbacks = [Die(args.die_at)] if args.die_at else []
    if args.backup:
        callbacks.insert(0, keras.callbacks.BackupAndRestore(args.backup, 2))
    with kd.strategies.scope("auto"):
        noise = bool(args.backup)
        distiller = KINDS[args.kind]() if args.kind in KINDS else make(noise)
        logs = distiller.fit(
            kd.data.batches(samples, 12, shuffle=bool(args.backup)),
            epochs=3,
            verbose=0,
            callbacks=callbacks,
        ).history
        whole = kd.data.batches(samples, 12)
        found = distiller.evaluate(whole, verbose=0, return_dict=True)
        predicted = distiller.predict(whole, verbose=0)
    variables = [*distiller.variables, *distiller.optimizer.variables]
    np.savez(
        args.result,
        **{
            f"weight {i} {v.name}": keras.ops.convert_to_numpy(v)
            for i, v in enumerate(variables)
        },
        **{f"train {name}": values for name, values in logs.items()},
        **{f"test {name}": value for name, value in found.items()},
        predicted=np.concatenate(keras.tree.flatten(predicted)),
        devices=devices(variables[1]),
    )


if __name__ == "__main__":
    main()
