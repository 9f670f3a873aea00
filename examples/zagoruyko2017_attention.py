"""Zagoruyko, Komodakis 2017: attention transfer with wide residual networks.

    python examples/zagoruyko2017_attention.py
    python examples/zagoruyko2017_attention.py --dataset cifar10_jpeg --train-size 5000

Small-scale stand-in: wide residual networks as in the paper's CIFAR-10 table, with fewer
layers; the students see the first `--train-size` training samples after a seeded shuffle,
the teacher all. Attention maps at the end of the three stages, sum of squares, weight
1000 each; soft targets at T = 4 with weight 0.9, and 0.1 for the labels. These are the
paper's values; full activations and gradients have their recommended weights; nothing was
tuned. Finished runs are stored in `--out` and not repeated.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

# (depth, widen) of student and teacher
PAIRS = {
    "WRN-10-1 from WRN-16-2": ((10, 1), (16, 2)),
    "WRN-10-1 from WRN-22-1": ((10, 1), (22, 1)),
}
METHODS = ("student", "AT", "F-ActT", "KD", "AT+KD", "gradient AT", "symmetry")
COLUMNS = (*METHODS, "teacher")
PAPER = {
    "WRN-16-1 from WRN-16-2": (8.77, 7.93, 8.51, 7.41, 7.51, None, None, 6.31),
    "WRN-16-1 from WRN-40-1": (8.77, 8.25, 8.62, 8.39, 8.01, None, None, 6.58),
}
TRAIN_SIZE, BATCH = {"digits": 200}, 32
EPOCHS = {"teacher": 20, "student": 150}


def fit(model, samples, epochs, seed, eager=False):
    train = kd.data.batches(samples, BATCH, shuffle=True, seed=seed)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=eager,
    )
    model.fit(train, epochs=epochs, verbose=0)


def net(data, shape, seed):
    keras.utils.set_random_seed(seed)
    depth, widen = shape
    return kd.models.wide_resnet(
        data.input_shape, data.classes, depth=depth, widen=widen, weight_decay=5e-4
    )


def trained_teacher(data, shape, file, epochs, seed, eager):
    if file.exists():
        return keras.saving.load_model(file)
    teacher = net(data, shape, seed)
    fit(teacher, data.train, epochs, seed, eager)
    teacher.save(file)
    return teacher


def on_stacks(loss, weight=None):
    return [
        kd.Term(loss, stack, stack, weight, name=f"{loss.name}_{stack}")
        for stack in ("stack1", "stack2", "stack3")
    ]


def terms(method):
    symmetric = (kd.Tap.input_gradient(), kd.Tap.input_gradient(mirrored=True))
    by_method = {
        "AT": on_stacks(kd.losses.AttentionMap(2), 1e3),
        "F-ActT": on_stacks(kd.losses.FullActivation()),
        "KD": [kd.Term(kd.losses.SoftTarget(4.0), weight=0.9)],
        "gradient AT": [kd.Term(kd.losses.GradientAttention(), *symmetric[:1] * 2)],
        "symmetry": [kd.Term(kd.losses.FlipSymmetry(), student=symmetric)],
    }
    return [term for part in method.split("+") for term in by_method[part]]


def trained_student(data, few, shape, teacher, method, epochs, seed, eager):
    student = model = net(data, shape, 1000 + seed)
    if method != "student":
        labels = 0.1 if "KD" in method else 1.0
        model = kd.Distiller(student, teacher, terms=terms(method), label_weight=labels)
    fit(model, few, epochs, seed, eager)
    return student


def run(runs, data, pair, shapes, seed, eager):
    """Train and evaluate all methods with one pair of networks and one seed."""
    epochs = runs.settings["epochs"]
    student, (depth, widen) = shapes
    file = runs.file.parent / f"wrn_{depth}_{widen}_{seed}.keras"
    shape = depth, widen
    teacher = trained_teacher(data, shape, file, epochs["teacher"], seed, eager)
    few = data.train.few(runs.settings["train_size"], seed)
    models = {"teacher": lambda: teacher}
    for method in METHODS:
        models[method] = lambda method=method: trained_student(
            data, few, student, teacher, method, epochs["student"], seed, eager
        )
    for name, train in models.items():
        error = runs.once(
            f"{pair}, {name}",
            seed,
            lambda train=train: 100 * kd.analysis.wrong(train(), data.test).mean(),
        )
        print(f"{pair}, {name}, seed {seed}: {error:.2f} %", flush=True)


def report(runs, pairs, seeds):
    rows = [
        {"pair": f"{pair} (paper, CIFAR-10)", **dict(zip(COLUMNS, row, strict=True))}
        for pair, row in PAPER.items()
    ]
    rows += [
        {"pair": pair, **{name: runs.summary(f"{pair}, {name}") for name in COLUMNS}}
        for pair in pairs
    ]
    print(kd.analysis.table(rows))
    print(
        f"\nTest error in %, last epoch, mean ± std; seeds: {seeds}. "
        f"Settings: {runs.settings}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/zagoruyko2017")
    args = parser.parse_args()
    pairs, epochs = PAIRS, {**EPOCHS, "student": args.epochs}
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        pairs = {"WRN-10-1 from WRN-10-1": ((10, 1), (10, 1))}
        epochs, args.out = dict.fromkeys(EPOCHS, 1), args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    settings = {"dataset": args.dataset, "train_size": size, "epochs": epochs}
    runs = kd.analysis.Runs(args.out / "errors.json", settings)
    for pair, shapes in pairs.items():
        for seed in range(args.seeds):
            run(runs, data, pair, shapes, seed, args.smoke)
    report(runs, pairs, args.seeds)


if __name__ == "__main__":
    main()
