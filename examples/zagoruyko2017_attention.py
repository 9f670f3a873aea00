"""Zagoruyko, Komodakis 2017: attention transfer, their CIFAR-10 table on data at hand.

    python examples/zagoruyko2017_attention.py
    python examples/zagoruyko2017_attention.py --dataset cifar10_jpeg --train-size 5000

The stand-in protocol: wide residual nets as in the paper, of fewer layers; the students
see the first `--train-size` training samples after a seeded shuffle, the teacher all.
Attention maps at the ends of the three stages, sum of squares, weight 1000 each; soft
targets at T = 4, weight 0.9 beside 0.1 for the labels. These are the paper's values;
nothing was tuned. Finished cells are kept in `--out` and not repeated.
"""

import argparse
import json
import pathlib

import keras
import numpy as np

import keras_distill as kd

PAIRS = {
    "WRN-10-1 from WRN-16-2": ((10, 1), (16, 2)),
    "WRN-10-1 from WRN-22-1": ((10, 1), (22, 1)),
}
METHODS = ("student", "AT", "KD", "AT+KD")
PAPER = {
    "WRN-16-1 from WRN-16-2": {
        "student": 8.77,
        "AT": 7.93,
        "KD": 7.41,
        "AT+KD": 7.51,
        "teacher": 6.31,
    },
    "WRN-16-1 from WRN-40-1": {
        "student": 8.77,
        "AT": 8.25,
        "KD": 8.39,
        "AT+KD": 8.01,
        "teacher": 6.58,
    },
}
TRAIN_SIZE, TEACHER_EPOCHS, EPOCHS, BATCH = {"digits": 200}, 20, 150, 32


def terms(method):
    found = []
    if "AT" in method:
        found += [
            kd.Term(kd.losses.AttentionMap(2), stack, stack, 1e3, name=f"at_{stack}")
            for stack in ("stack1", "stack2", "stack3")
        ]
    if "KD" in method:
        found.append(kd.Term(kd.losses.SoftTarget(4.0), weight=0.9))
    return found


def fit(model, samples, epochs, seed):
    train = kd.data.batches(samples, BATCH, shuffle=True, seed=seed)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(train, epochs=epochs, verbose=0)


def error(model, samples):
    wrong = model.predict(samples.images, 500, verbose=0).argmax(-1) != samples.labels
    return 100 * float(wrong.mean())


def net(data, shape, seed):
    keras.utils.set_random_seed(seed)
    depth, widen = shape
    return kd.models.wide_resnet(
        data.input_shape, data.classes, depth=depth, widen=widen, weight_decay=5e-4
    )


def train_teacher(data, shape, file, epochs, seed):
    if not file.exists():
        teacher = net(data, shape, seed)
        fit(teacher, data.train, epochs, seed)
        teacher.save(file)
    return keras.saving.load_model(file)


def run_cell(data, few, shape, teacher, method, epochs, seed):
    student = net(data, shape, 1000 + seed)
    if method == "student":
        fit(student, few, epochs, seed)
    else:
        labels = 0.1 if "KD" in method else 1.0
        fit(
            kd.Distiller(student, teacher, terms=terms(method), label_weight=labels),
            few,
            epochs,
            seed,
        )
    return error(student, data.test)


def run(args, data):
    """Fill the table, a cell at a time."""
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"errors_{args.dataset}_{args.train_size}_{args.epochs}.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for pair, (student, shape) in args.pairs.items():
        for seed in range(args.seeds):
            name = f"{args.dataset}_wrn{shape[0]}_{shape[1]}_{args.teacher_epochs}"
            teacher = train_teacher(
                data,
                shape,
                args.out / f"{name}_{seed}.keras",
                args.teacher_epochs,
                seed,
            )
            few = data.train[
                np.random.default_rng(seed).permutation(len(data.train))[
                    : args.train_size
                ]
            ]
            cells = found.setdefault(pair, {})
            cells.setdefault("teacher", {}).setdefault(
                str(seed), error(teacher, data.test)
            )
            for method in METHODS:
                if str(seed) not in cells.setdefault(method, {}):
                    cells[method][str(seed)] = run_cell(
                        data, few, student, teacher, method, args.epochs, seed
                    )
                    file.write_text(json.dumps(found, indent=1))
                    print(pair, method, seed, cells[method][str(seed)], flush=True)
    return found


def report(found, args, data):
    rows = [{"nets": f"{pair} (paper, CIFAR-10)", **row} for pair, row in PAPER.items()]
    for pair, cells in found.items():
        row = {
            method: f"{np.mean(list(v.values())):.2f} ± {np.std(list(v.values())):.2f}"
            for method, v in cells.items()
        }
        rows.append({"nets": pair, **row})
    print(kd.analysis.table(rows))
    copy = " (a lossy JPEG copy of CIFAR-10)" if args.dataset == "cifar10_jpeg" else ""
    print(
        f"\nTest error in %, last epoch, mean ± deviation over {args.seeds} seed(s); "
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
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/zagoruyko2017_attention"
    )
    args = parser.parse_args()
    args.pairs, args.teacher_epochs = PAIRS, TEACHER_EPOCHS
    if args.smoke:
        args.dataset, args.train_size, args.epochs, args.seeds = "digits", 64, 1, 1
        args.pairs, args.teacher_epochs = (
            {"WRN-10-1 from WRN-10-1": ((10, 1), (10, 1))},
            1,
        )
    data = kd.data.load(args.dataset)
    args.train_size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    report(run(args, data), args, data)


if __name__ == "__main__":
    main()
