"""Anil et al. 2018: codistillation of peers that train in processes of their own.

    python examples/anil2018_codistillation.py

Two nets of one kind train side by side, each in its process, alone and together: then
each learns, after a burn-in by labels alone, from weights of the other that are up to
50 steps old. On halves of the data that do not meet, as the paper's text model, and on
all of it. The paper claims that peers learn faster, and that two trainings of one net
end with predictions more alike. The stand-in protocol: digits or CIFAR-10's copy in
place of ImageNet and Criteo, small residual nets; nothing is tuned. Finished cells are
kept in `--out` and not repeated.
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
# Of all steps.
BURN_IN = 0.25
CELLS = {
    "alone, a half each": {"together": False, "share": 0.5},
    "together, a half each": {"together": True, "share": 0.5},
    "alone, all data": {"together": False, "share": 1.0},
    "together, all data": {"together": True, "share": 1.0},
}


def net(data, place, seed, width):
    keras.utils.set_random_seed(100 * seed + place)
    return kd.models.resnet(
        data.input_shape, data.classes, depth=8, width=width, name=NAMES[place]
    )


def samples(data, size, share, place, seed):
    """Give a peer's data: its own half, or all."""
    few = data.train.few(size, seed)
    own = round(share * size)
    return few[:own] if place == 0 else few[-own:]


def train_peer(place, cell, seed, settings, folder):
    """Train one peer to the end; leave its logits of the test images in the folder."""
    data = kd.data.load(settings["dataset"])
    how = CELLS[cell]
    own = samples(data, settings["train_size"], how["share"], place, seed)
    student = net(data, place, seed, settings["width"])
    train = kd.data.batches(own, BATCH, shuffle=True, seed=seed)
    # As many steps for all, whatever the share of the data.
    steps = settings["epochs"] * -(-settings["train_size"] // BATCH)
    model = together(data, student, place, seed, settings, folder, steps, how)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(train.repeat(), steps_per_epoch=steps, verbose=0)
    logits = student.predict(data.test.images, batch_size=500, verbose=0)
    np.save(folder / f"{place}.npy", logits)


def together(data, student, place, seed, settings, folder, steps, how):
    if not how["together"]:
        return student
    other = 1 - place
    peers = {NAMES[other]: net(data, other, seed, settings["width"])}
    teacher = kd.RemotePeers(
        peers, folder / "weights", name=NAMES[place], refresh=settings["refresh"]
    )
    weight = keras.optimizers.schedules.PiecewiseConstantDecay(
        [round(BURN_IN * steps)], [0.0, 1.0]
    )
    return kd.Distiller(
        student, teacher, terms=[kd.Term(kd.losses.SoftTarget(1.0), weight=weight)]
    )


def side_by_side(cell, seed, settings, labels, folder):
    """Train both peers at once; give their accuracies, and how far they are apart."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    peers = [
        subprocess.Popen(
            [
                *(sys.executable, __file__, "--out", str(folder)),
                *("--peer", json.dumps([place, cell, seed, settings])),
            ]
        )
        for place in range(len(NAMES))
    ]
    ends = [peer.wait() for peer in peers]
    if any(ends):
        raise RuntimeError(f"A peer ended with an error: {ends}.")
    classes = [np.load(folder / f"{i}.npy").argmax(-1) for i in range(len(NAMES))]
    shutil.rmtree(folder)
    apart = [(a != b).mean() for a, b in itertools.combinations(classes, 2)]
    return {
        "accuracy": [100 * (found == labels).mean() for found in classes],
        "apart": 100 * np.mean(apart),
    }


def report(runs):
    rows = [
        {
            "two peers": name,
            "first": runs.summary(name, of=lambda cell: cell["accuracy"][0]),
            "second": runs.summary(name, of=lambda cell: cell["accuracy"][1]),
            "named apart": runs.summary(name, of=lambda cell: cell["apart"]),
        }
        for name in runs.names
    ]
    print(kd.analysis.table(rows))
    print(
        "\nTest accuracy, and test images whose class the two peers name apart, in %;"
    )
    print(f"mean ± deviation. Stand-in: {runs.settings}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=400)
    parser.add_argument("--width", type=int, default=16, help="filters of the nets")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer", help="train one, in this process")
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
