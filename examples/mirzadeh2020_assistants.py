"""Mirzadeh et al. 2020: teacher assistants between a large teacher and a small student.

    python examples/mirzadeh2020_assistants.py

The largest network learns from labels; the smallest learns from it directly, through one
assistant of each size in between, through all of them, or through the one that
`kd.choose_assistants` selects by accuracy on held-out training data. Small-scale
stand-in: digits or CIFAR-10's JPEG copy, plain conv nets with 4 to 32 filters instead of
2 to 10 layers, few training samples. The learning rate was chosen on held-out training
images. Finished runs are stored in `--out`.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

SIZES, EPOCHS, BATCH, SIZE, TEMPERATURE = (32, 16, 8, 4), 60, 32, 600, 4.0
RATE = 3e-2
# Accuracy in %, plain CNN on CIFAR-10, teacher of 10 layers, student of 2; from memory,
# not checked against the paper.
PAPER = {"student alone": 70.16, "from the teacher": 72.57, "one assistant": 73.51}


def net(data, size, name):
    return kd.models.conv_net(
        data.input_shape, data.classes, filters=(size, 2 * size), name=name
    )


def fit_chain(data, train, sizes, seed, epochs):
    """Train networks of these sizes, each from the previous one; return the last."""
    steps = epochs * len(train)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    soft = kd.Term(kd.losses.SoftTarget(TEMPERATURE), weight=0.9)
    generations = kd.fit_generations(
        lambda index: net(data, sizes[index], f"net{index}"),
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
    return generations[-1].model


def accuracy(model, samples):
    return 100 - 100 * kd.analysis.wrong(model, samples).mean()


def chains(sizes):
    """Return the sizes of each chain of networks by name."""
    large, *between, small = sizes
    found = {"teacher": (large,), "student alone": (small,)}
    found["from the teacher"] = (large, small)
    for size in between:
        found[f"by way of {size} filters"] = (large, size, small)
    found["through all sizes"] = sizes
    return found


def run(runs, data, seed, sizes):
    epochs = runs.settings["epochs"]
    few = data.train.few(runs.settings["train_size"], seed)
    fitting, held_out = few.split(0.2, seed)
    batches = lambda samples: kd.data.batches(samples, BATCH, shuffle=True, seed=seed)  # noqa: E731
    for name, chain in chains(sizes).items():
        result = runs.once(
            name,
            seed,
            lambda c=chain: accuracy(
                fit_chain(data, batches(few), c, seed, epochs), data.test
            ),
        )
        print(name, f"seed {seed}: {result:.2f} %", flush=True)
    alone = [
        runs.once(
            f"held out, {size} filters alone",
            seed,
            lambda s=size: accuracy(
                fit_chain(data, batches(fitting), (s,), seed, epochs), held_out
            ),
        )
        for size in sizes
    ]
    chosen = sizes[kd.choose_assistants(alone)[0]]
    print(f"chosen, seed {seed}: {chosen} filters", flush=True)
    name = f"by way of {chosen} filters"
    runs.once("one assistant", seed, lambda: runs[name][-1])


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
        {"chain": name, "paper (recalled)": PAPER.get(name), "ours": runs.summary(name)}
        for name in runs.names
        if not name.startswith("held out")
    ]
    print(kd.analysis.table(rows))
    print(
        "\nTest accuracy in %, last epoch, mean ± std; 'one assistant' has the "
        f"size chosen on held-out data; seeds: {args.seeds}. Settings: {settings}."
    )


if __name__ == "__main__":
    main()
