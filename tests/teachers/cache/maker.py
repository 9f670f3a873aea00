"""Build a cache as one of several processes, train from it and save the student.

    python tests/teachers/cache/maker.py FOLDER RESULT [--pause SECONDS] [--full-after SHARDS]
                                 [--company PROCESSES]

TF_CONFIG lists the other workers that train in step, if any. Prints the shards that this
process built. `--pause` slows the data down; `--full-after` makes every write fail after
this number of shards, as on a full disk; `--company` waits for this number of processes.
"""

import argparse
import os
import pathlib
import resource
import time

import keras
import numpy as np

import keras_distill as kd
from keras_distill.teachers.cache.shards import Shards
from tests.teachers.cache.conftest import net


def watch(full_after):
    write, made = Shards.write, []

    def watched(self, shard, parts, note):
        write(self, shard, parts, note)
        made.append(shard)
        print("made", shard, flush=True)
        if len(made) == full_after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    Shards.write = watched


def slow(samples, pause):
    import tensorflow as tf

    def wait(ids):
        time.sleep(pause)
        return ids

    def late(x, y):
        ids = tf.numpy_function(wait, [x["sample_id"]], x["sample_id"].dtype)
        ids.set_shape(x["sample_id"].shape)
        return {**x, "sample_id": ids}, y

    return kd.data.batches(samples, 10, sample_ids=True).map(late)


def meet(folder, processes):
    (folder / f"here-{os.getpid()}").touch()
    while len(list(folder.glob("here-*"))) < processes:
        time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("result")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--full-after", type=int)
    parser.add_argument("--company", type=int, default=1)
    args = parser.parse_args()
    watch(args.full_after)
    samples = kd.data.load("digits").train[:300]
    with kd.strategies.scope("auto"):
        data = slow(samples, args.pause) if args.pause else samples
        cached = kd.CachedTeacher(args.folder, net(), top_k=3, temperature=4.0)
        meet(pathlib.Path(args.result).parent, args.company)
        cached.build(data, 10, shard_rows=30, patience=3.0, verbose=0)
        distiller = kd.Distiller(net("student", 6, 2), cached, student_inputs="image")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(1e-3), loss)
        train = kd.data.batches(samples, 60, sample_ids=True)
        history = distiller.fit(cached.join(train), epochs=2, verbose=0).history
    found = cached.read(samples.ids)["logits"]
    weights = {
        f"weight {i}": keras.ops.convert_to_numpy(v)
        for i, v in enumerate(distiller.student.variables)
    }
    np.savez(args.result, **found, **weights, losses=history["soft_target"])


if __name__ == "__main__":
    main()
