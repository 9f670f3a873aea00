"""Zhang et al. 2018: deep mutual learning, peers that teach each other.

    python examples/zhang2018_mutual.py

Pairs of nets of one size and of two, each alone, together, and together with copies
that are renewed every 50 steps (codistillation), and a student that learns from its own
mean teacher. The stand-in protocol: digits or CIFAR-10's copy in place of CIFAR-100,
small residual nets, few training samples. How the setting for CIFAR-10's copy was chosen
stands on docs/results/zhang2018_mutual.md; nothing else was tuned. Finished cells are
kept in `--out` and not repeated.
"""

import argparse
import dataclasses
import pathlib

import keras

import keras_distill as kd

EPOCHS, BATCH, SIZE = 30, 64, 400
PAIRS = ((8, 8), (8, 14))
# Steps until the copies are renewed.
SCHEMES = {"together": None, "with copies": 50}
# CIFAR-100, top-1 in %, ResNet-32 with ResNet-32 and with WRN-28-10; recalled and not
# checked against the paper.
PAPER = {
    ((8, 8), 0): "68.99, 71.19 (ResNet-32)",
    ((8, 14), 0): "68.99, 70.73 (with WRN-28-10)",
}


class Cells:
    """Trainings on one seed's few samples; each begins with the same order of them."""

    def __init__(self, runs, data, seed):
        self.runs, self.data, self.seed, self.settings = runs, data, seed, runs.settings
        self.few = data.train.few(self.settings["train_size"], seed)

    def net(self, depth, place):
        keras.utils.set_random_seed(100 * self.seed + place)
        return kd.models.resnet(
            self.data.input_shape,
            self.data.classes,
            depth=depth,
            width=self.settings["width"],
            name=f"peer{place}",
        )

    def fit(self, model):
        keras.utils.set_random_seed(self.seed)
        train = kd.data.batches(self.few, BATCH, shuffle=True, seed=self.seed)
        epochs = self.settings["epochs"]
        rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss)
        model.fit(train, epochs=epochs, verbose=0)

    def right(self, model):
        return 100 - 100 * kd.analysis.wrong(model, self.data.test).mean()

    def alone(self, depth, place):
        model = self.net(depth, place)
        self.fit(model)
        return self.right(model)

    def together(self, depths, refresh):
        peers = [self.net(depth, place) for place, depth in enumerate(depths)]
        self.fit(kd.MutualDistiller(peers, refresh=refresh))
        return [self.right(peer) for peer in peers]

    def from_mean_teacher(self, depth):
        student = self.net(depth, 0)
        soft = [kd.Term(kd.losses.SoftTarget(1.0), weight=1.0)]
        teacher = kd.MeanTeacher(student, decay=0.99)
        self.fit(kd.Distiller(student, teacher, terms=soft))
        return self.right(student)

    def keep(self, name, make):
        found = self.runs.once(name, self.seed, make)
        print(f"{name}, seed {self.seed}: {found}", flush=True)


def run(cells, schemes):
    for depths in PAIRS:
        for place, depth in enumerate(depths):
            cells.keep(
                f"{depth} {place} alone", lambda d=depth, p=place: cells.alone(d, p)
            )
        for how in schemes:
            pair = f"{depths} {how}"
            cells.keep(pair, lambda d=depths, h=how: cells.together(d, SCHEMES[h]))
    if "with copies" in schemes:
        depth = PAIRS[0][0]
        cells.keep("from its mean teacher", lambda: cells.from_mean_teacher(depth))


def report(runs, schemes):
    rows = []
    for depths in PAIRS:
        for place, depth in enumerate(depths):
            row = {"pair": " and ".join(map(str, depths)), "peer": depth}
            row["alone"] = runs.summary(f"{depth} {place} alone")
            for how in schemes:
                row[how] = runs.summary(
                    f"{depths} {how}", of=lambda both, p=place: both[p]
                )
            rows.append({**row, "paper: alone, together": PAPER.get((depths, place))})
    print(kd.analysis.table(rows))
    if "from its mean teacher" in runs.names:
        print(f"\n{PAIRS[0][0]} from its mean teacher:", runs.summary(runs.names[-1]))
    print(f"\nAccuracy in %, last epoch, mean ± deviation. Stand-in: {runs.settings}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=SIZE)
    parser.add_argument("--width", type=int, default=16, help="filters of the nets")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--held-out", action="store_true", help="of training data")
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
