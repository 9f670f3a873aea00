"""Zhang et al. 2019: self-distillation from the deepest exit to the earlier exits.

    python examples/zhang2019_own_teacher.py

A residual network with an exit after each stage, trained on labels at the last exit, on
labels at each exit (deep supervision), or by its own deepest exit. The table has each
exit's accuracy, parameters and multiplications. Small-scale stand-in: digits or
CIFAR-10's JPEG copy instead of CIFAR-100, a ResNet-14 instead of a ResNet-18, few training
samples. Nothing was tuned. Finished runs are stored in `--out`, with a plot of accuracy
by cost.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

EPOCHS, BATCH, SIZE, DEPTH = 40, 64, 400, 14
EXITS, FEATURES = ("stack1", "stack2"), "stack3"
# CIFAR-100, ResNet-18, top-1 in %: alone, then the exits; from memory, not checked.
PAPER = {
    "labels, deepest": "77.09",
    "own teacher, stack1": "67.85",
    "own teacher, stack2": "74.57",
    "own teacher, deepest": "78.64",
}


def net(data, seed):
    keras.utils.set_random_seed(seed)
    return kd.models.resnet(data.input_shape, data.classes, depth=DEPTH, width=16)


def fit(model, train, epochs):
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(train, epochs=epochs, verbose=0)


def from_labels(data, train, seed, epochs):
    model = net(data, seed)
    fit(model, train, epochs)
    return {"deepest": 100 - 100 * kd.analysis.wrong(model, data.test).mean()}


def from_exits(data, train, seed, epochs, **weights):
    features = FEATURES if weights.get("hint_weight", 1.0) else None
    distiller = kd.SelfDistiller(net(data, seed), EXITS, features=features, **weights)
    fit(distiller, train, epochs)
    rows = kd.analysis.exits(distiller, data.test)
    return {row["exit"]: float(row["accuracy %"]) for row in rows}


def schemes(data, train, seed, epochs):
    return {
        "labels": lambda: from_labels(data, train, seed, epochs),
        "exits by labels": lambda: from_exits(
            data, train, seed, epochs, soft_weight=0.0, hint_weight=0.0
        ),
        "own teacher": lambda: from_exits(data, train, seed, epochs),
    }


def plot(costs, runs, file):
    try:
        from matplotlib import figure
    except ImportError:
        print("\nNo plot: matplotlib is not installed (pip install matplotlib).")
        return
    page = figure.Figure(figsize=(6, 4), layout="constrained")
    axes = page.subplots()
    for name in runs.names:
        exits = list(runs[name][0])
        means = [sum(f[e] for f in runs[name]) / len(runs[name]) for e in exits]
        axes.plot([costs[e] for e in exits], means, "o-", label=name)
    axes.set(xlabel="multiplications", ylabel="test accuracy %", xscale="log")
    axes.legend()
    page.savefig(file)
    print(f"\nPlot: {file}")


def report(runs, data):
    distiller = kd.SelfDistiller(net(data, 0), EXITS, features=FEATURES)
    costs = {
        name: kd.analysis.cost(distiller.exit(name)) for name in (*EXITS, "deepest")
    }
    rows = []
    for name in runs.names:
        for exit in runs[name][0]:
            rows.append(
                {
                    "method": name,
                    "exit": exit,
                    "paper, CIFAR-100 (recalled)": PAPER.get(f"{name}, {exit}"),
                    "ours": runs.summary(name, of=lambda figure, e=exit: figure[e]),
                    "parameters": costs[exit].parameters,
                    "multiplications": costs[exit].multiplications,
                }
            )
    print(kd.analysis.table(rows))
    print(
        "\nTest accuracy in %, last epoch, mean ± std; cost of the exits of 'own "
        f"teacher'; seeds: {len(runs['labels'])}. Settings: {runs.settings}."
    )
    return {name: cost.multiplications for name, cost in costs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=SIZE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/zhang2019_own_teacher"
    )
    args = parser.parse_args()
    epochs = EPOCHS
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        epochs, args.out = 1, args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, "train_size": args.train_size}
    settings |= {"epochs": epochs, "depth": DEPTH, "exits": EXITS}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        few = data.train.few(args.train_size, seed)
        train = kd.data.batches(few, BATCH, shuffle=True, seed=seed)
        for name, scheme in schemes(data, train, seed, epochs).items():
            result = runs.once(name, seed, scheme)
            print(name, f"seed {seed}: {result}", flush=True)
    plot(report(runs, data), runs, args.out / "exits.png")


if __name__ == "__main__":
    main()
