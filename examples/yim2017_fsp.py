"""Yim, Joo, Bae, Kim 2017: the flow of a solution procedure, on data at hand.

    python examples/yim2017_fsp.py
    python examples/yim2017_fsp.py --dataset cifar10_jpeg --train-size 5000

A deep residual net teaches a shallow one in two stages: first the FSP matrices, of the
first and the last layer of each stage, without labels; then labels alone. Beside it the
student alone and FitNets' hint in place of the matrices. The stand-in protocol: smaller
nets; the students see the first `--train-size` training samples after a seeded shuffle,
the teacher all. Nothing was tuned. Finished cells are kept in `--out` and not repeated.
"""

import argparse
import json
import pathlib

import keras
import numpy as np

import keras_distill as kd

TEACHER, STUDENT = {"depth": 20, "width": 8}, {"depth": 8, "width": 8}
STAGES = (("stem_relu", "stack1"), ("stack1", "stack2"), ("stack2", "stack3"))
METHODS = ("student", "FitNet", "FSP")
PAPER = {"teacher": 91.91, "student": 87.91, "FitNet": 88.57, "FSP": 88.70}
TRAIN_SIZE, TEACHER_EPOCHS, FIRST_EPOCHS, EPOCHS, BATCH = (
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


def first_stage(method):
    """Give the terms of the stage before the labels."""
    if method == "FitNet":
        return [kd.Term(kd.losses.Hint(), student="stack2", teacher="stack2")]
    return [
        kd.Term(kd.losses.FlowMatrix(), student=pair, teacher=pair, name=f"fsp{i}")
        for i, pair in enumerate(STAGES, start=1)
    ]


def train_student(data, few, teacher, method, args, seed):
    keras.utils.set_random_seed(1000 + seed)
    student = kd.models.resnet(data.input_shape, data.classes, **STUDENT)
    if method != "student":
        first = kd.Distiller(
            student, teacher, terms=first_stage(method), label_weight=0.0
        )
        fit(first, few, args.first_epochs, seed, labels=False)
    fit(student, few, args.epochs, seed)
    return student


def train_teacher(data, file, epochs, seed):
    if not file.exists():
        keras.utils.set_random_seed(seed)
        teacher = kd.models.resnet(data.input_shape, data.classes, **TEACHER)
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
        for method in METHODS:
            cell = found.setdefault(method, {})
            if str(seed) not in cell:
                student = train_student(data, few, teacher, method, args, seed)
                cell[str(seed)] = accuracy(student, data.test)
                file.write_text(json.dumps(found, indent=1))
                print(method, seed, cell[str(seed)], flush=True)
    return found


def report(found, args, data):
    ours = {
        name: f"{np.mean(list(v.values())):.2f} ± {np.std(list(v.values())):.2f}"
        for name, v in found.items()
    }
    rows = [{"": "paper, CIFAR-10", **PAPER}, {"": f"ours, {args.dataset}", **ours}]
    print(kd.analysis.table(rows))
    copy = " (a lossy JPEG copy of CIFAR-10)" if args.dataset == "cifar10_jpeg" else ""
    print(
        f"\nTest accuracy in %, last epoch, mean ± deviation over {args.seeds} seed(s); "
        f"stand-in: {args.dataset}{copy}, students see {args.train_size} of "
        f"{len(data.train)} training samples, {args.first_epochs} epochs of the first "
        f"stage and {args.epochs} with labels."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/yim2017_fsp")
    args = parser.parse_args()
    args.teacher_epochs, args.first_epochs = TEACHER_EPOCHS, FIRST_EPOCHS
    if args.smoke:
        args.dataset, args.train_size, args.epochs, args.seeds = "digits", 64, 1, 1
        args.teacher_epochs = args.first_epochs = 1
    data = kd.data.load(args.dataset)
    args.train_size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    report(run(args, data), args, data)


if __name__ == "__main__":
    main()
