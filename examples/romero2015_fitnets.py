"""Romero et al. 2015: FitNets, their accuracy and speed table on data at hand.

    python examples/romero2015_fitnets.py
    python examples/romero2015_fitnets.py --dataset cifar10_jpeg --train-size 5000

Thin and deep students of a wide and shallow teacher, in the two stages of Algorithm 1:
first the student up to the guided layer through a convolutional regressor, without
labels; then soft targets (T = 3, their weight falling from 4 to 1) and labels on the
whole net. The stand-in protocol: plain nets with batch normalisation in place of maxout;
the students see the first `--train-size` training samples after a seeded shuffle, the
teacher all. Nothing was tuned. Finished cells are kept in `--out` and not repeated.
"""

import argparse
import json
import pathlib

import keras
import numpy as np

import keras_distill as kd

TEACHER = {"filters": (32, 64, 128)}
STUDENTS = {
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
TRAIN_SIZE, TEACHER_EPOCHS, HINT_EPOCHS, EPOCHS, BATCH = (
    {"digits": 200},
    20,
    100,
    150,
    32,
)


def fit(model, samples, epochs, seed, labels=True):
    train = kd.data.batches(samples, BATCH, shuffle=True, seed=seed)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss if labels else None)
    model.fit(train, epochs=epochs, verbose=0)


def accuracy(model, samples):
    right = model.predict(samples.images, 500, verbose=0).argmax(-1) == samples.labels
    return 100 * float(right.mean())


def hint_stage(student, teacher, few, epochs, seed):
    """Stage 1: the guided layer through a regressor, no labels."""
    hint = kd.Term(
        kd.losses.Hint(),
        student="stack2",
        teacher="stack2",
        adapter=kd.adapters.ValidConvolution(),
    )
    first = kd.Distiller(student, teacher, terms=[hint], label_weight=0.0)
    fit(first, few, epochs, seed, labels=False)


def soft_stage(student, teacher, few, epochs, seed):
    """Stage 2: soft targets on the whole net, their weight falling from 4 to 1."""
    steps = epochs * -(-len(few) // BATCH)
    falling = keras.optimizers.schedules.PolynomialDecay(4.0, steps, 1.0)
    soft = kd.Term(kd.losses.SoftTarget(temperature=3.0), weight=falling)
    second = kd.Distiller(student, teacher, terms=[soft], label_weight=1.0)
    fit(second, few, epochs, seed)


def train_student(data, few, shape, teacher, method, args, seed):
    keras.utils.set_random_seed(1000 + seed)
    student = kd.models.conv_net(data.input_shape, data.classes, **shape)
    if method == "FitNet":
        hint_stage(student, teacher, few, args.hint_epochs, seed)
    if method == "alone":
        fit(student, few, args.epochs, seed)
    else:
        soft_stage(student, teacher, few, args.epochs, seed)
    return student


def train_teacher(data, file, epochs, seed):
    if not file.exists():
        keras.utils.set_random_seed(seed)
        teacher = kd.models.conv_net(data.input_shape, data.classes, **TEACHER)
        fit(teacher, data.train, epochs, seed)
        teacher.save(file)
    return keras.saving.load_model(file)


def run(args, data):
    """Fill the table, a cell at a time."""
    args.out.mkdir(parents=True, exist_ok=True)
    key = f"{args.dataset}_{args.train_size}_{args.epochs}"
    file = args.out / f"accuracies_{key}.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for seed in range(args.seeds):
        name = f"teacher_{args.dataset}_{args.teacher_epochs}_{seed}.keras"
        teacher = train_teacher(data, args.out / name, args.teacher_epochs, seed)
        found.setdefault("teacher", {}).setdefault(
            str(seed), accuracy(teacher, data.test)
        )
        order = np.random.default_rng(seed).permutation(len(data.train))
        few = data.train[order[: args.train_size]]
        for net, shape in args.students.items():
            for method in METHODS:
                cell = found.setdefault(f"{net}, {method}", {})
                if str(seed) in cell:
                    continue
                student = train_student(data, few, shape, teacher, method, args, seed)
                cell[str(seed)] = accuracy(student, data.test)
                file.write_text(json.dumps(found, indent=1))
                print(net, method, seed, cell[str(seed)], flush=True)
    return found


def report(found, args, data):
    shapes = {"teacher": TEACHER, **args.students}
    costs = {
        name: kd.analysis.cost(
            kd.models.conv_net(data.input_shape, data.classes, **shape),
            data.test.images[:256],
        )
        for name, shape in shapes.items()
    }
    titles = "network", "accuracy %", "parameters", "multiplications", "speed-up"
    rows = [dict(zip(titles, row, strict=True)) for row in PAPER]
    for name, cells in found.items():
        cost = costs[name.split(",")[0]]
        values = list(cells.values())
        shown = f"{np.mean(values):.2f} ± {np.std(values):.2f}"
        speed = costs["teacher"].seconds_per_image / cost.seconds_per_image
        row = name, shown, cost.parameters, cost.multiplications, round(speed, 2)
        rows.append(dict(zip(titles, row, strict=True)))
    print(kd.analysis.table(rows))
    copy = " (a lossy JPEG copy of CIFAR-10)" if args.dataset == "cifar10_jpeg" else ""
    print(
        f"\nTest accuracy, last epoch, mean ± deviation over {args.seeds} seed(s); "
        f"stand-in: {args.dataset}{copy}, students see {args.train_size} of "
        f"{len(data.train)} training samples for {args.epochs} epochs."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/romero2015_fitnets")
    args = parser.parse_args()
    args.students, args.teacher_epochs, args.hint_epochs = (
        STUDENTS,
        TEACHER_EPOCHS,
        HINT_EPOCHS,
    )
    if args.smoke:
        args.dataset, args.train_size, args.epochs, args.seeds = "digits", 64, 1, 1
        args.students = dict(list(STUDENTS.items())[:1])
        args.teacher_epochs = args.hint_epochs = 1
    data = kd.data.load(args.dataset)
    args.train_size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    report(run(args, data), args, data)


if __name__ == "__main__":
    main()
