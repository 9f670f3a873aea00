"""Killed runs: how many end bit for bit as runs that were not killed.

    KERAS_BACKEND=jax python benchmarks/killed_runs.py --kills 20

Each subject, a distiller or a scheme, is trained with a backup in a process that gets
SIGKILL at a random moment, and once more from the backup. Its weights are compared with
those of a run without a backup. The kills are spread over the steps per execution, over
runs with validation and without, and over save frequencies; each run has callbacks with
a state. All of it runs on a CPU.
"""

import argparse
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

import keras_distill as kd

BATCH, BATCHES, EPOCHS, CLASSES = 8, 12, 3, 4
EXECUTIONS = (1,) if keras.backend.backend() == "torch" else (1, 4, 5)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def samples(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, BATCH * BATCHES).astype("int32")
    x = rng.normal(size=(len(labels), 6)) + labels[:, None]
    return kd.data.Samples(x.astype("float32"), labels)


def stream(seed):
    return kd.data.batches(samples(seed), BATCH, shuffle=True)


def net(width, name=None):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(width, "relu", name="hidden")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.3)(x)
    logits = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def callbacks():
    """Return callbacks that change the run by what they have seen of it."""
    never = {"monitor": "loss", "min_delta": 10.0}
    return [
        keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5, **never),
        keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True, **never),
    ]


def compiled(executions):
    return {
        "optimizer": keras.optimizers.Adam(0.02),
        "loss": LOSS,
        "steps_per_execution": executions,
    }


def fit(distiller, case, backup, extra):
    executions, validates, save_freq = case
    distiller.compile(**compiled(executions))
    saving = [kd.BackupAndRestore(backup, save_freq)] if backup else []
    distiller.fit(
        stream(0),
        epochs=EPOCHS,
        validation_data=stream(1) if validates else None,
        callbacks=[*callbacks(), *extra, *saving],
        verbose=0,
    )
    return distiller.variables


def of_distiller(*arguments):
    terms = [
        kd.Term(kd.losses.SoftTarget(4.0)),
        kd.Term(kd.losses.Hint(), "hidden", "hidden", weight=1.0),
    ]
    return fit(kd.Distiller(net(6), net(9), terms=terms), *arguments)


def of_peers(*arguments):
    return fit(kd.MutualDistiller([net(6, "a"), net(7, "b")]), *arguments)


def of_itself(*arguments):
    return fit(kd.SelfDistiller(net(6), ["hidden"]), *arguments)


def settings(case, backup, extra):
    """Return the arguments of a scheme."""
    validation = {"validation_data": stream(1)} if case[1] else {}
    every = {"backup": backup, "callbacks": extra, "verbose": 0}
    return every | validation


def of_stages(case, backup, extra):
    distiller = kd.Distiller(net(6), net(9))
    distiller.compile(**compiled(case[0]))
    paraphraser = kd.adapters.Paraphraser()
    factors = kd.losses.FactorTransfer(paraphraser)
    stages = [
        kd.ParaphraserStage(paraphraser, "hidden", epochs=2),
        kd.Stage(
            [kd.Term(factors, "hidden", "hidden", weight=1.0)],
            trains="hidden",
            epochs=2,
            callbacks=callbacks(),
        ),
        kd.Stage([kd.Term(kd.losses.SoftTarget(4.0))], epochs=2),
    ]
    kd.fit_stages(distiller, stages, stream(0), **settings(case, backup, extra))
    return distiller.student.variables


def of_generations(case, backup, extra):
    chain = kd.fit_generations(
        lambda index: net(6 + index),
        3,
        stream(0),
        compiled=compiled(case[0]),
        epochs=2,
        **settings(case, backup, extra),
    )
    return [v for generation in chain for v in generation.model.variables]


def of_specialists(case, backup, extra):
    """Train specialists, whose progress only their files show."""
    generalist = net(9, "generalist")
    groups = [[0, 1], [2, 3]]
    models = kd.fit_specialists(
        generalist,
        groups,
        samples(0),
        compiled=compiled(case[0]),
        epochs=EPOCHS,
        batch_size=BATCH,
        backup=backup,
        verbose=0,
    )
    for counter in (x for x in extra if isinstance(x, Count)):
        counter.executions = len(groups) * EPOCHS
    return [v for model in models for v in model.variables]


SUBJECTS = {
    "Distiller": of_distiller,
    "MutualDistiller": of_peers,
    "SelfDistiller": of_itself,
    "fit_stages": of_stages,
    "fit_generations": of_generations,
    "fit_specialists": of_specialists,
}


class Tick(keras.callbacks.Callback):
    """Prints a line after each execution."""

    def on_train_batch_end(self, batch, logs=None):
        """Print at once."""
        print(batch, flush=True)


class Count(keras.callbacks.Callback):
    """Counts executions."""

    executions = 0

    def on_train_batch_end(self, batch, logs=None):
        """Count."""
        self.executions += 1


def trained(subject, case, backup=None, extra=()):
    keras.utils.set_random_seed(1)
    variables = SUBJECTS[subject](case, backup, list(extra))
    return [keras.ops.convert_to_numpy(v) for v in variables]


def kill(subject, case, backup, after) -> bool:
    """Train in a process that is killed after some executions; whether it was."""
    command = [sys.executable, __file__, "--run", json.dumps([subject, case, backup])]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    if subject == "fit_specialists":
        while process.poll() is None and epochs_in(backup) < after:
            time.sleep(0.01)
    else:
        for _ in itertools.islice((x for x in process.stdout if x.strip()), after):
            pass
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def epochs_in(folder) -> int:
    """Return the number of epochs that the files of a scheme's trainings list."""
    files = pathlib.Path(folder).glob("*/[0-9]*.json")
    # Others are not whole yet.
    logs = [file for file in files if file.stem.isdecimal()]
    return sum(len(json.loads(file.read_text())) for file in logs)


def cases(subject):
    frequencies = ("epoch", 5) if subject.endswith("Distiller") else ("epoch",)
    return list(itertools.product(EXECUTIONS, (False, True), frequencies))


def row(subject, kills):
    rng, expected, equal, killed = np.random.default_rng(0), {}, 0, 0
    for _, case in zip(range(kills), itertools.cycle(cases(subject)), strict=False):
        if case not in expected:
            count = Count()
            expected[case] = trained(subject, case, extra=[count]), count.executions
        weights, executions = expected[case]
        with tempfile.TemporaryDirectory() as folder:
            backup = os.path.join(folder, "backup")
            after = int(rng.integers(1, executions))
            killed += kill(subject, case, backup, after)
            again = trained(subject, case, backup)
        equal += all(map(np.array_equal, weights, again))
    backend = keras.backend.backend()
    return {"subject": subject, "backend": backend, "killed": killed, "equal": equal}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--subjects", default=",".join(SUBJECTS))
    parser.add_argument(
        "--run", help="of one process: subject, case and folder in JSON"
    )
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if args.run:
        subject, case, backup = json.loads(args.run)
        trained(subject, case, backup, [Tick()])
        return
    subjects = args.subjects.split(",")
    subjects, kills = (subjects[:1], 1) if args.smoke else (subjects, args.kills)
    rows = []
    for subject in subjects:
        rows.append(row(subject, kills))
        print(rows[-1], file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))
    print(kd.analysis.table(rows))


if __name__ == "__main__":
    main()
