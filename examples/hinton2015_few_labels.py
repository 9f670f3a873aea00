"""Hinton et al. 2015, section 6: soft targets as regularizers, with 3 % of the data.

    python examples/hinton2015_few_labels.py

A network is trained on all training images, and the same network on 3 % of them, with
labels and with the soft targets of the first. Stand-in: MNIST instead of the paper's
acoustic model. Nothing was tuned. The last line is the fraction of the gap between labels
of 3 % and all data that soft targets close. Finished runs are stored in `--out`.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

UNITS, BATCH, TEMPERATURE = (800, 800), 64, 20.0
EPOCHS = {"all": 15, "few": 100}
# Frame accuracy in %.
PAPER = {"all data": 58.9, "3 %, labels": 44.5, "3 %, soft targets": 57.0}


def net(data, seed):
    keras.utils.set_random_seed(seed)
    return kd.models.mlp(data.input_shape, data.classes, units=UNITS)


def fit(model, samples, epochs, seed):
    train = kd.data.batches(samples, BATCH, shuffle=True, seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * len(train))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(train, epochs=epochs, verbose=0)


def accuracy(model, data):
    return 100 - 100 * kd.analysis.wrong(model, data.test).mean()


def trained_teacher(data, file, seed, epochs):
    if not file.exists():
        teacher = net(data, seed)
        fit(teacher, data.train, epochs, seed)
        teacher.save(file)
    return keras.saving.load_model(file)


def hard(data, few, seed, epochs):
    student = net(data, 1000 + seed)
    fit(student, few, epochs, seed)
    return accuracy(student, data)


def soft(data, few, teacher, seed, epochs):
    student = net(data, 1000 + seed)
    term = kd.Term(kd.losses.SoftTarget(TEMPERATURE), weight=0.9)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.1)
    fit(distiller, few, epochs, seed)
    return accuracy(student, data)


def run(runs, data, seed):
    epochs = runs.settings["epochs"]
    file = runs.file.parent / f"teacher_{seed}.keras"
    teacher = trained_teacher(data, file, seed, epochs["all"])
    few = data.train.few(runs.settings["few"], seed)
    models = {
        "all data": lambda: accuracy(teacher, data),
        "3 %, labels": lambda: hard(data, few, seed, epochs["few"]),
        "3 %, soft targets": lambda: soft(data, few, teacher, seed, epochs["few"]),
    }
    for name, train in models.items():
        print(name, f"seed {seed}: {runs.once(name, seed, train):.2f} %", flush=True)


def closed_gap(accuracies):
    """Return the fraction of the gap from labels to all data that soft targets close."""
    return (accuracies["3 %, soft targets"] - accuracies["3 %, labels"]) / (
        accuracies["all data"] - accuracies["3 %, labels"]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/hinton2015_few_labels"
    )
    args = parser.parse_args()
    epochs = EPOCHS
    if args.smoke:
        args.dataset, args.seeds, args.out = "digits", 1, args.out / "smoke"
        epochs = dict.fromkeys(EPOCHS, 1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    few = round(0.03 * len(data.train))
    settings = {"dataset": args.dataset, "few": few, "epochs": epochs}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, seed)
    rows = [
        {"": name, "paper, frames": PAPER[name], "ours": runs.summary(name)}
        for name in runs.names
    ]
    print(kd.analysis.table(rows))
    means = {name: sum(runs[name]) / args.seeds for name in runs.names}
    print(
        f"\nClosed gap: paper {closed_gap(PAPER):.2f}, ours {closed_gap(means):.2f}. "
        f"Accuracy in %, test split, last epoch, mean ± std; seeds: {args.seeds}. "
        f"Settings: {settings}."
    )


if __name__ == "__main__":
    main()
