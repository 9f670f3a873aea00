"""Weak scaling: step time with one worker and with several over loopback.

    python benchmarks/weak_scaling.py

Each worker is a process on its own core with the same batch size, so a step would take
the same time with any number of workers if communication were free. The table has the
median seconds of a step and what each replica sends: the gradients that are reduced, and
what relation losses gather. The last rows time the all-reduce of vectors alone, from which
latency and bandwidth follow.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import keras
import numpy as np

import keras_distill as kd

STACKS = ("stack1", "stack2", "stack3")
BATCH, STEPS, WARM = 32, 60, 10
VECTORS = (1_000, 1_000_000, 4_000_000)


def terms(name):
    soft = [kd.Term(kd.losses.SoftTarget(4.0), weight=0.9)]
    taps = [kd.Term(kd.losses.Hint(), s, s, 1.0, name=f"hint_{s}") for s in STACKS]
    relation = [kd.Term(kd.losses.SimilarityMatrix(), "pool", "pool", 10.0)]
    return {
        "soft targets": soft,
        "three hints": soft + taps,
        "similarity of samples": soft + relation,
    }[name]


NAMES = ("soft targets", "three hints", "similarity of samples")


def distiller(name):
    keras.utils.set_random_seed(0)
    shape = (32, 32, 3), 10
    student = kd.models.resnet(*shape, depth=8, width=16, name="student")
    teacher = kd.models.resnet(*shape, depth=20, width=16, name="teacher")
    model = kd.Distiller(student, teacher, terms=terms(name))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Clock(keras.callbacks.Callback):
    """Record the end of each step."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())


def step_seconds(name, workers, steps):
    model, clock = distiller(name), Clock()
    rng = np.random.default_rng(0)
    count = BATCH * workers * (steps + WARM)
    images = rng.normal(size=(BATCH * workers, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, len(images))
    import tensorflow as tf

    batch = tf.data.Dataset.from_tensors((images, labels)).repeat(count // len(images))
    model.fit(batch, verbose=0, callbacks=[clock])
    sent = 4 * sum(np.prod(v.shape) for v in model.trainable_variables)
    pool = model.student.get_layer("pool").output.shape[-1]
    gathered = 4 * BATCH * pool if name == "similarity of samples" else 0
    seconds = np.median(np.diff(clock.ends)[WARM:])
    return float(seconds), int(sent), int(gathered)


def all_reduce_seconds(strategy, size, rounds=20):
    import tensorflow as tf

    @tf.function
    def reduce():
        def replica():
            context = tf.distribute.get_replica_context()
            return context.all_reduce("sum", tf.ones((size,)))

        return strategy.run(replica)

    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        strategy.experimental_local_results(reduce())[0].numpy()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[5:]))


def work(index, workers, steps, names):
    """Run as one of the workers; the first worker prints the results."""
    os.sched_setaffinity(0, {index % os.cpu_count()})
    with kd.strategies.scope("multiworker" if workers > 1 else "one") as strategy:
        times = {name: step_seconds(name, workers, steps) for name in names}
        vectors = {n: all_reduce_seconds(strategy, n) for n in VECTORS}
    if index == 0:
        print(json.dumps({"steps": times, "vectors": vectors}))


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run(workers, steps, names):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    processes = []
    for index in range(workers):
        config = {"cluster": {"worker": addresses}}
        config["task"] = {"type": "worker", "index": index}
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["TF_CONFIG"] = json.dumps(config) if workers > 1 else ""
        command = [sys.executable, __file__, "--steps", str(steps)]
        command += ["--index", str(index), "--workers", str(workers)]
        command += ["--names", names]
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"One of {workers} workers failed.")
    return json.loads(outputs[0].splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--names", default=",".join(NAMES), help="rows to measure")
    parser.add_argument("--index", type=int, help="run as this worker")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if args.index is not None:
        work(args.index, args.workers, args.steps, args.names.split(","))
        return
    steps, names = (2, NAMES[-1]) if args.smoke else (args.steps, args.names)
    results = {count: run(count, steps, names) for count in (1, args.workers)}
    one, several = results.values()
    rows = [
        {
            "terms": name,
            "one worker, s": round(one["steps"][name][0], 4),
            f"{args.workers} workers, s": round(several["steps"][name][0], 4),
            "ratio": round(several["steps"][name][0] / one["steps"][name][0], 2),
            "gradients, bytes": one["steps"][name][1],
            "gathered, bytes": one["steps"][name][2],
        }
        for name in one["steps"]
    ]
    print(kd.analysis.table(rows))
    sizes = [
        {"all-reduced numbers": int(size), "seconds": round(seconds, 5)}
        for size, seconds in several["vectors"].items()
    ]
    print(kd.analysis.table(sizes))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
