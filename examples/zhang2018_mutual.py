"""Zhang et al. 2018: deep mutual learning between peers.

    python examples/zhang2018_mutual.py

Pairs of networks of the same size and of different sizes, each trained alone, together,
and together with copies that are refreshed every 50 steps (codistillation), and a student
with its own mean teacher. Small-scale stand-in: digits or CIFAR-10's JPEG copy instead of
CIFAR-100, small residual networks, few training samples. Settings for CIFAR-10's copy were
chosen as in docs/results/zhang2018_mutual.md; nothing else was tuned. Finished runs are
stored in `--out`.
"""

import argparse
import dataclasses
import pathlib

import keras

import keras_distill as kd

EPOCHS, BATCH, SIZE = 30, 64, 400
PAIRS = ((8, 8), (8, 14))
# Steps between refreshes of the copies.
SCHEMES = {"together": None, "with copies": 50}
# CIFAR-100, top-1 in %, ResNet-32 with ResNet-32 and with WRN-28-10; from memory, not
# checked against the paper.
PAPER = {
    ((8, 8), 0): "68.99, 71.19 (ResNet-32)",
    ((8, 14), 0): "68.99, 70.73 (with WRN-28-10)",
}


class Cells:
    """Training runs on the samples of one seed, each in the same order of the batches."""

    def __init__(self, runs, data, seed):
        self.runs, self.data, self.seed, self.settings = runs, data, seed, runs.settings
        self.few = data.train.few(self.settings["train_size"], seed)

    def net(self, depth, index):
        keras.utils.set_random_seed(100 * self.seed + index)
        return kd.models.resnet(
            self.data.input_shape,
            self.data.classes,
            depth=depth,
            width=self.settings["width"],
            name=f"peer{index}",
        )

    def fit(self, model):
        keras.utils.set_random_seed(self.seed)
        train = kd.data.batches(self.few, BATCH, shuffle=True, seed=self.seed)
        epochs = self.settings["epochs"]
        rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss)
        model.fit(train, epochs=epochs, verbose=0)

    def accuracy(self, model):
        return 100 - 100 * kd.analysis.wrong(model, self.data.test).mean()

    def alone(self, depth, index):
        model = self.net(depth, index)
        self.fit(model)
        return self.accuracy(model)

    def together(self, depths, refresh):
        peers = [self.net(depth, index) for index, depth in enumerate(depths)]
        self.fit(kd.MutualDistiller(peers, refresh=refresh))
        return [self.accuracy(peer) for peer in peers]

    def from_mean_teacher(self, depth):
        student = self.net(depth, 0)
        soft = [kd.Term(kd.losses.SoftTarget(1.0), weight=1.0)]
        teacher = kd.MeanTeacher(student, decay=0.99)
        self.fit(kd.Distiller(student, teacher, terms=soft))
        return self.accuracy(student)

    def keep(self, name, make):
        result = self.runs.once(name, self.seed, make)
        print(f"{name}, seed {self.seed}: {result}", flush=True)


def run(cells, schemes):
    for depths in PAIRS:
        for index, depth in enumerate(depths):
            cells.keep(
                f"{depth} {index} alone", lambda d=depth, i=index: cells.alone(d, i)
            )
        for scheme in schemes:
            name, refresh = f"{depths} {scheme}", SCHEMES[scheme]
            cells.keep(name, lambda d=depths, r=refresh: cells.together(d, r))
    if "with copies" in schemes:
        depth = PAIRS[0][0]
        cells.keep("from its mean teacher", lambda: cells.from_mean_teacher(depth))


def report(runs, schemes):
    rows = []
    for depths in PAIRS:
        for index, depth in enumerate(depths):
            row = {"pair": " and ".join(map(str, depths)), "peer": depth}
            row["alone"] = runs.summary(f"{depth} {index} alone")
            for scheme in schemes:
                row[scheme] = runs.summary(
                    f"{depths} {scheme}", of=lambda both, i=index: both[i]
                )
            rows.append({**row, "paper: alone, together": PAPER.get((depths, index))})
    print(kd.analysis.table(rows))
    if "from its mean teacher" in runs.names:
        print(f"\n{PAIRS[0][0]} from its mean teacher:", runs.summary(runs.names[-1]))
    print(f"\nAccuracy in %, last epoch, mean ± std. Settings: {runs.settings}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=SIZE)
    parser.add_argument("--width", type=int, default=16, help="filters of the networks")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--held-out", action="store_true", help="evaluate on held-out data"
    )
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/zhang2018_mutual")
    args = parser.parse_args()
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        args.epochs, args.width, args.out = 1, 4, args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    if args.held_out:
        train, held_out = data.train.split(0.2)
        data = dataclasses.replace(data, train=train, test=held_out)
    settings = {"dataset": args.dataset, "train_size": args.train_size}
    settings["judged on"] = "held out" if args.held_out else "test"
    settings |= {"epochs": args.epochs, "width": args.width}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    schemes = args.schemes.split(",")
    for seed in range(args.seeds):
        run(Cells(runs, data, seed), schemes)
    report(runs, schemes)


if __name__ == "__main__":
    main()
