"""Romero et al. 2015: FitNets, accuracy and speed.

    python examples/romero2015_fitnets.py
    python examples/romero2015_fitnets.py --dataset cifar10_jpeg --train-size 5000

Thin and deep students of a wide and shallow teacher, in the two stages of Algorithm 1:
first the student up to the guided layer through a convolutional regressor, without
labels; then the whole student with labels and soft targets (T = 3, weight decaying from 4
to 1). Small-scale stand-in: plain networks with batch normalization instead of maxout;
the students see the first `--train-size` training samples after a seeded shuffle, the
teacher all. Nothing was tuned. Finished runs are stored in `--out` and not repeated.
"""

import argparse
import itertools
import pathlib

import keras

import keras_distill as kd

NETS = {
    "teacher": {"filters": (32, 64, 128)},
    "FitNet A": {"filters": (4, 8, 8), "convs_per_stack": 3},
    "FitNet B": {"filters": (8, 12, 16), "convs_per_stack": 3},
}
METHODS = ("alone", "KD", "FitNet")
PAPER = [
    ("teacher (paper, CIFAR-10)", 90.18, "9M", "725M", 1.0),
    ("FitNet 1 (paper)", 89.01, "250K", "30M", 13.36),
    ("FitNet 2 (paper)", 91.06, "862K", "108M", 4.64),
    ("FitNet 3 (paper)", 91.10, "1.6M", "392M", 1.37),
    ("FitNet 4 (paper)", 91.61, "2.5M", "382M", 1.52),
]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TRAIN_SIZE, BATCH = {"digits": 200}, 32
EPOCHS = {"teacher": 20, "hint": 100, "student": 150}


def adam(steps):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps))


def fit(model, samples, epochs, seed):
    train = kd.data.batches(samples, BATCH, shuffle=True, seed=seed)
    model.compile(adam(epochs * len(train)), LOSS)
    model.fit(train, epochs=epochs, verbose=0)


def net(data, name, seed=0):
    keras.utils.set_random_seed(seed)
    return kd.models.conv_net(data.input_shape, data.classes, **NETS[name])


def trained_teacher(data, file, epochs, seed):
    if file.exists():
        return keras.saving.load_model(file)
    teacher = net(data, "teacher", seed)
    fit(teacher, data.train, epochs, seed)
    teacher.save(file)
    return teacher


def stages(steps_per_epoch, epochs, method):
    """Return the stages of Algorithm 1: hints, then soft targets and labels."""
    hint = kd.Term(
        kd.losses.Hint(),
        student="stack2",
        teacher="stack2",
        adapter=kd.adapters.ValidConvolution(),
    )
    steps = epochs["student"] * steps_per_epoch
    decay = keras.optimizers.schedules.PolynomialDecay(4.0, steps, 1.0)
    soft = kd.Term(kd.losses.SoftTarget(temperature=3.0), weight=decay)
    first = kd.Stage(
        [hint],
        trains="stack2",
        label_weight=0.0,
        optimizer=adam(epochs["hint"] * steps_per_epoch),
        epochs=epochs["hint"],
    )
    second = kd.Stage([soft], optimizer=adam(steps), epochs=epochs["student"])
    return [first, second] if method == "FitNet" else [second]


def trained_student(data, few, name, teacher, method, epochs, seed):
    student = net(data, name, 1000 + seed)
    if method == "alone":
        fit(student, few, epochs["student"], seed)
        return student
    train = kd.data.batches(few, BATCH, shuffle=True, seed=seed)
    distiller = kd.Distiller(student, teacher)
    distiller.compile("adam", LOSS)
    kd.fit_stages(distiller, stages(len(train), epochs, method), train, verbose=0)
    return student


def run(runs, data, names, seed):
    """Train and evaluate all models with one seed."""
    epochs = runs.settings["epochs"]
    file = runs.file.parent / f"teacher_{seed}.keras"
    teacher = trained_teacher(data, file, epochs["teacher"], seed)
    few = data.train.few(runs.settings["train_size"], seed)

    models = {"teacher": lambda: teacher}
    for name, method in itertools.product(names, METHODS):
        models[f"{name}, {method}"] = lambda name=name, method=method: trained_student(
            data, few, name, teacher, method, epochs, seed
        )
    for row, train in models.items():
        result = runs.once(
            row,
            seed,
            lambda train=train: (
                100 - 100 * kd.analysis.wrong(train(), data.test).mean()
            ),
        )
        print(row, f"seed {seed}: {result:.2f} %", flush=True)


def report(runs, data):
    costs = {name: kd.analysis.cost(net(data, name), data.test.images) for name in NETS}
    titles = "network", "accuracy %", "parameters", "multiplications", "speed-up"
    rows = [dict(zip(titles, row, strict=True)) for row in PAPER]
    for row in runs.names:
        cost = costs[row.split(",")[0]]
        speed = costs["teacher"].seconds_per_image / cost.seconds_per_image
        row = (
            row,
            runs.summary(row),
            cost.parameters,
            cost.multiplications,
            f"{speed:.2f}",
        )
        rows.append(dict(zip(titles, row, strict=True)))
    print(kd.analysis.table(rows))
    print(
        f"\nTest accuracy in %, last epoch, mean ± std; "
        f"seeds: {len(runs['teacher'])}. Settings: {runs.settings}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/romero2015_fitnets")
    args = parser.parse_args()
    names, epochs = list(NETS)[1:], {**EPOCHS, "student": args.epochs}
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        names, epochs = names[:1], dict.fromkeys(EPOCHS, 1)
        args.out = args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    settings = {"dataset": args.dataset, "train_size": size, "epochs": epochs}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, names, seed)
    report(runs, data)


if __name__ == "__main__":
    main()
