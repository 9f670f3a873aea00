"""Mirzadeh et al. 2020: teacher assistants, between a large teacher and a small student.

    python examples/mirzadeh2020_assistants.py

A chain of plain nets: the largest learns from labels, the smallest from it directly, by
way of one assistant of each size between, or by way of the one that
`kd.choose_assistants` takes by accuracies on held-out training data. The stand-in
protocol: digits or CIFAR-10's copy, plain conv nets of 4 to 32 filters in place of 2 to
10 layers, few training samples. The rate was chosen on held-out training images.
Finished cells are kept in `--out`.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

SIZES, EPOCHS, BATCH, SIZE, TEMPERATURE = (32, 16, 8, 4), 60, 32, 600, 4.0
RATE = 3e-2
# Accuracy in %, plain CNN on CIFAR-10, teacher of 10 layers, student of 2; recalled and
# not checked against the paper.
PAPER = {"student alone": 70.16, "from the teacher": 72.57, "one assistant": 73.51}


def net(data, size, name):
    return kd.models.conv_net(
        data.input_shape, data.classes, filters=(size, 2 * size), name=name
    )


def fit_chain(data, train, sizes, seed, epochs):
    """Train a chain of sizes, each from the one before; give the last."""
    steps = epochs * len(train)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    soft = kd.Term(kd.losses.SoftTarget(TEMPERATURE), weight=0.9)
    found = kd.fit_generations(
        lambda place: net(data, sizes[place], f"net{place}"),
        len(sizes),
        train,
        compiled={
            "optimizer": keras.optimizers.Adam(rate),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        },
        terms=[soft],
        label_weight=0.1,
        epochs=epochs,
        seed=100 * seed,
        verbose=0,
    )
    return found[-1].model


def right(model, samples):
    return 100 - 100 * kd.analysis.wrong(model, samples).mean()


def chains(sizes):
    """Give the sizes of each way from the largest to the smallest."""
    large, *between, small = sizes
    ways = {"teacher": (large,), "student alone": (small,)}
    ways["from the teacher"] = (large, small)
    for size in between:
        ways[f"by way of {size} filters"] = (large, size, small)
    ways["through all sizes"] = sizes
    return ways


def run(runs, data, seed, sizes):
    epochs = runs.settings["epochs"]
    few = data.train.few(runs.settings["train_size"], seed)
    fitting, held_out = few.split(0.2, seed)
    batches = lambda samples: kd.data.batches(samples, BATCH, shuffle=True, seed=seed)  # noqa: E731
    for name, chain in chains(sizes).items():
        found = runs.once(
            name,
            seed,
            lambda c=chain: right(
                fit_chain(data, batches(few), c, seed, epochs), data.test
            ),
        )
        print(name, f"seed {seed}: {found:.2f} %", flush=True)
    alone = [
        runs.once(
            f"held out, {size} filters alone",
            seed,
            lambda s=size: right(
                fit_chain(data, batches(fitting), (s,), seed, epochs), held_out
            ),
        )
        for size in sizes
    ]
    chosen = sizes[kd.choose_assistants(alone)[0]]
    print(f"chosen, seed {seed}: {chosen} filters", flush=True)
    way = f"by way of {chosen} filters"
    runs.once("one assistant", seed, lambda: runs[way][-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=SIZE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/mirzadeh2020_assistants"
    )
    args = parser.parse_args()
    sizes, epochs = SIZES, EPOCHS
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        sizes, epochs, args.out = (8, 4, 2), 1, args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, "train_size": args.train_size}
    settings |= {"epochs": epochs, "filters": sizes, "temperature": TEMPERATURE}
    settings |= {"batch": BATCH, "rate": RATE}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, seed, sizes)
    rows = [
        {"way": name, "paper (recalled)": PAPER.get(name), "ours": runs.summary(name)}
        for name in runs.names
        if not name.startswith("held out")
    ]
    print(kd.analysis.table(rows))
    print(
        "\nTest accuracy in %, last epoch, mean ± deviation; 'one assistant' is that of "
        f"the size chosen on held-out data; seeds: {args.seeds}. Stand-in: {settings}."
    )


if __name__ == "__main__":
    main()
