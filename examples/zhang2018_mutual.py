"""Zhang et al. 2018: deep mutual learning, peers that teach each other.

    python examples/zhang2018_mutual.py

Pairs of nets of one size and of two, each alone, together, and together with copies
that are renewed every 50 steps (codistillation), and a student that learns from its own
mean teacher. The stand-in protocol: digits or CIFAR-10's copy in place of CIFAR-100,
small residual nets, few training samples. Nothing was tuned. Finished cells are kept in
`--out` and not repeated.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

EPOCHS, BATCH, SIZE, REFRESH = 30, 64, 400, 50
PAIRS = {"8 and 8": (8, 8), "8 and 14": (8, 14)}
# CIFAR-100, top-1 in %, ResNet-32 with ResNet-32 and with WRN-28-10; recalled and not
# checked against the paper.
PAPER = {
    "8 and 8: first alone": "68.99 (ResNet-32)",
    "8 and 8: first together": "71.19 (ResNet-32)",
    "8 and 14: first together": "70.73 (ResNet-32 with WRN-28-10)",
}


def net(data, depth, seed, place):
    keras.utils.set_random_seed(100 * seed + place)
    name = f"peer{place}"
    return kd.models.resnet(
        data.input_shape, data.classes, depth=depth, width=16, name=name
    )


def fit(model, train, epochs, seed):
    keras.utils.set_random_seed(seed)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(train, epochs=epochs, verbose=0)


def right(model, data):
    return 100 - 100 * kd.analysis.wrong(model, data.test).mean()


def alone(data, train, depth, place, seed, epochs):
    model = net(data, depth, seed, place)
    fit(model, train, epochs, seed)
    return right(model, data)


def together(data, train, depths, seed, epochs, refresh=None):
    peers = [net(data, depth, seed, place) for place, depth in enumerate(depths)]
    fit(kd.MutualDistiller(peers, refresh=refresh), train, epochs, seed)
    return [right(peer, data) for peer in peers]


def from_mean_teacher(data, train, depth, seed, epochs):
    student = net(data, depth, seed, 0)
    soft = [kd.Term(kd.losses.SoftTarget(1.0), weight=1.0)]
    teacher = kd.MeanTeacher(student, decay=0.99)
    fit(kd.Distiller(student, teacher, terms=soft), train, epochs, seed)
    return right(student, data)


def run(runs, data, seed, pairs):
    epochs = runs.settings["epochs"]
    few = data.train.few(runs.settings["train_size"], seed)
    train = kd.data.batches(few, BATCH, shuffle=True, seed=seed)
    for name, depths in pairs.items():
        for place, depth in enumerate(depths):
            runs.once(
                f"{name}: {('first', 'second')[place]} alone",
                seed,
                lambda d=depth, p=place: alone(data, train, d, p, seed, epochs),
            )
        for how, refresh in {"together": None, "with copies": REFRESH}.items():
            both = runs.once(
                f"{name}: {how}",
                seed,
                lambda d=depths, r=refresh: together(data, train, d, seed, epochs, r),
            )
            for place, figure in zip(("first", "second"), both, strict=True):
                runs.once(f"{name}: {place} {how}", seed, lambda f=figure: f)
        print(name, f"seed {seed} done", flush=True)
    depth = next(iter(pairs.values()))[0]
    runs.once(
        f"{depth} from its mean teacher",
        seed,
        lambda: from_mean_teacher(data, train, depth, seed, epochs),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=SIZE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/zhang2018_mutual")
    args = parser.parse_args()
    pairs, epochs = PAIRS, EPOCHS
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        pairs, epochs, args.out = {"8 and 8": (8, 8)}, 1, args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, "train_size": args.train_size}
    settings |= {"epochs": epochs, "refresh": REFRESH}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, seed, pairs)
    pairs_of_figures = {
        f"{name}: {how}" for name in pairs for how in ("together", "with copies")
    }
    rows = [
        {
            "depths of the pair": name,
            "paper, CIFAR-100 (recalled)": PAPER.get(name),
            "ours": runs.shown(name),
        }
        for name in runs.names
        if name not in pairs_of_figures
    ]
    print(kd.analysis.table(rows))
    print(
        f"\nTest accuracy in %, last epoch, mean ± deviation; seeds: {args.seeds}. "
        f"Stand-in: {settings}."
    )


if __name__ == "__main__":
    main()
