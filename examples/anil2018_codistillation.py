"""Anil et al. 2018: codistillation between peers in separate processes.

    python examples/anil2018_codistillation.py

Two networks of the same architecture train in parallel, each in its own process, alone
or together: after a burn-in on labels, each peer learns from weights of the other that
are up to 50 steps old. They train on disjoint halves of the data, as the paper's text
model, or on all of it. The paper claims that peers learn faster, and that two runs end
with more similar predictions. Small-scale stand-in: digits or CIFAR-10's JPEG copy
instead of ImageNet and Criteo, small residual networks; nothing is tuned. Finished runs
are stored in `--out` and not repeated.
"""

import argparse
import itertools
import json
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np

import keras_distill as kd

BATCH, REFRESH, NAMES = 64, 50, ("first", "second")
# Fraction of all steps.
BURN_IN = 0.25
CELLS = {
    "alone, a half each": {"together": False, "fraction": 0.5},
    "together, a half each": {"together": True, "fraction": 0.5},
    "alone, all data": {"together": False, "fraction": 1.0},
    "together, all data": {"together": True, "fraction": 1.0},
}


def net(data, index, seed, width):
    keras.utils.set_random_seed(100 * seed + index)
    return kd.models.resnet(
        data.input_shape, data.classes, depth=8, width=width, name=NAMES[index]
    )


def samples(data, size, fraction, index, seed):
    """Return the training samples of a peer: its half, or all."""
    few = data.train.few(size, seed)
    count = round(fraction * size)
    return few[:count] if index == 0 else few[-count:]


def train_peer(index, cell, seed, settings, folder):
    """Train one peer, and save its logits of the test images."""
    data = kd.data.load(settings["dataset"])
    options = CELLS[cell]
    few = samples(data, settings["train_size"], options["fraction"], index, seed)
    student = net(data, index, seed, settings["width"])
    train = kd.data.batches(few, BATCH, shuffle=True, seed=seed)
    # The number of steps does not depend on the fraction of the data.
    steps = settings["epochs"] * -(-settings["train_size"] // BATCH)
    model = together(data, student, index, seed, settings, folder, steps, options)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(train.repeat(), steps_per_epoch=steps, verbose=0)
    logits = student.predict(data.test.images, batch_size=500, verbose=0)
    np.save(folder / f"{index}.npy", logits)


def together(data, student, index, seed, settings, folder, steps, options):
    if not options["together"]:
        return student
    other = 1 - index
    peers = {NAMES[other]: net(data, other, seed, settings["width"])}
    teacher = kd.RemotePeers(
        peers, folder / "weights", name=NAMES[index], refresh=settings["refresh"]
    )
    weight = keras.optimizers.schedules.PiecewiseConstantDecay(
        [round(BURN_IN * steps)], [0.0, 1.0]
    )
    return kd.Distiller(
        student, teacher, terms=[kd.Term(kd.losses.SoftTarget(1.0), weight=weight)]
    )


def side_by_side(cell, seed, settings, labels, folder):
    """Train both peers in parallel; return their accuracies and their disagreement."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    peers = [
        subprocess.Popen(
            [
                *(sys.executable, __file__, "--out", str(folder)),
                *("--peer", json.dumps([index, cell, seed, settings])),
            ]
        )
        for index in range(len(NAMES))
    ]
    codes = [peer.wait() for peer in peers]
    if any(codes):
        raise RuntimeError(f"A peer failed; exit codes: {codes}.")
    classes = [np.load(folder / f"{i}.npy").argmax(-1) for i in range(len(NAMES))]
    shutil.rmtree(folder)
    apart = [(a != b).mean() for a, b in itertools.combinations(classes, 2)]
    return {
        "accuracy": [100 * (predicted == labels).mean() for predicted in classes],
        "apart": 100 * np.mean(apart),
    }


def report(runs):
    rows = [
        {
            "two peers": name,
            "first": runs.summary(name, of=lambda cell: cell["accuracy"][0]),
            "second": runs.summary(name, of=lambda cell: cell["accuracy"][1]),
            "disagreement": runs.summary(name, of=lambda cell: cell["apart"]),
        }
        for name in runs.names
    ]
    print(kd.analysis.table(rows))
    print("\nTest accuracy, and test images on which the two peers disagree, in %;")
    print(f"mean ± std. Settings: {runs.settings}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=400)
    parser.add_argument("--width", type=int, default=16, help="filters of the networks")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer", help="train one peer in this process")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/anil2018_codistillation"
    )
    args = parser.parse_args()
    if args.peer:
        train_peer(*json.loads(args.peer), args.out)
        return
    if args.smoke:
        args.train_size, args.seeds, args.epochs, args.width = 128, 1, 2, 4
        args.out = args.out / "smoke"
    settings = {"dataset": args.dataset, "train_size": args.train_size}
    settings |= {"epochs": args.epochs, "width": args.width}
    settings["refresh"] = 1 if args.smoke else REFRESH
    labels = kd.data.load(args.dataset).test.labels
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed, cell in itertools.product(range(args.seeds), CELLS):
        folder = args.out / f"{cell}, {seed}"
        found = runs.once(
            cell,
            seed,
            lambda c=cell, s=seed, f=folder: side_by_side(c, s, settings, labels, f),
        )
        print(f"{cell}, seed {seed}: {found}", flush=True)
    report(runs)


if __name__ == "__main__":
    main()
