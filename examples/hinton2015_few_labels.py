"""Hinton et al. 2015, section 6: soft targets let a net learn from 3 % of the data.

    python examples/hinton2015_few_labels.py

A net is trained on all training images; the same net on 3 % of them by their labels, and
by the soft targets of the first. The paper's is speech: frames of an acoustic model. The
stand-in protocol: MNIST. Nothing was tuned. The share of the way from hard 3 % to all
data that soft targets go is printed. Finished cells are kept in `--out`.
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


def right(model, data):
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
    return right(student, data)


def soft(data, few, teacher, seed, epochs):
    student = net(data, 1000 + seed)
    term = kd.Term(kd.losses.SoftTarget(TEMPERATURE), weight=0.9)
    distiller = kd.Distiller(student, teacher, terms=[term], label_weight=0.1)
    fit(distiller, few, epochs, seed)
    return right(student, data)


def run(runs, data, seed):
    epochs = runs.settings["epochs"]
    file = runs.file.parent / f"teacher_{seed}.keras"
    teacher = trained_teacher(data, file, seed, epochs["all"])
    few = data.train.few(runs.settings["few"], seed)
    ways = {
        "all data": lambda: right(teacher, data),
        "3 %, labels": lambda: hard(data, few, seed, epochs["few"]),
        "3 %, soft targets": lambda: soft(data, few, teacher, seed, epochs["few"]),
    }
    for name, way in ways.items():
        print(name, f"seed {seed}: {runs.once(name, seed, way):.2f} %", flush=True)


def share(figures):
    """Give how far soft targets go from hard labels to all data."""
    return (figures["3 %, soft targets"] - figures["3 %, labels"]) / (
        figures["all data"] - figures["3 %, labels"]
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
        f"\nShare of the way: paper {share(PAPER):.2f}, ours {share(means):.2f}. Accuracy "
        f"in %, test split, last epoch, mean ± deviation; seeds: {args.seeds}. "
        f"Stand-in: {settings}."
    )


if __name__ == "__main__":
    main()
