"""Yim, Joo, Bae, Kim 2017: the flow of the solution procedure (FSP).

    python examples/yim2017_fsp.py
    python examples/yim2017_fsp.py --dataset cifar10_jpeg --train-size 5000

A deep residual network teaches a shallow one in two stages: first the FSP matrices of the
first and last layer of each stage, without labels; then labels alone. Baselines: the
student alone, and FitNets' hint instead of the matrices. Small-scale stand-in: smaller
networks; the students see the first `--train-size` training samples after a seeded
shuffle, the teacher all. Nothing was tuned. Finished runs are stored in `--out`.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

DEPTHS, WIDTH = {"teacher": 20, "student": 8}, 8
STAGES = (("stem_relu", "stack1"), ("stack1", "stack2"), ("stack2", "stack3"))
METHODS = ("student", "FitNet", "FSP")
PAPER = {"teacher": 91.91, "student": 87.91, "FitNet": 88.57, "FSP": 88.70}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TRAIN_SIZE, BATCH = {"digits": 200}, 32
EPOCHS = {"teacher": 20, "first": 100, "labels": 150}


def adam(steps):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps))


def fit(model, samples, epochs, seed):
    train = kd.data.batches(samples, BATCH, shuffle=True, seed=seed)
    model.compile(adam(epochs * len(train)), LOSS)
    model.fit(train, epochs=epochs, verbose=0)


def net(data, name, seed):
    keras.utils.set_random_seed(seed)
    return kd.models.resnet(
        data.input_shape, data.classes, depth=DEPTHS[name], width=WIDTH
    )


def trained_teacher(data, file, epochs, seed):
    if file.exists():
        return keras.saving.load_model(file)
    teacher = net(data, "teacher", seed)
    fit(teacher, data.train, epochs, seed)
    teacher.save(file)
    return teacher


def first_stage(method):
    """Return the terms of the stage before the labels."""
    if method == "FitNet":
        return [kd.Term(kd.losses.Hint(), student="stack2", teacher="stack2")]
    return [
        kd.Term(kd.losses.FlowMatrix(), student=pair, teacher=pair, name=f"fsp{i}")
        for i, pair in enumerate(STAGES, start=1)
    ]


def trained_student(data, few, teacher, method, epochs, seed):
    student = net(data, "student", 1000 + seed)
    train = kd.data.batches(few, BATCH, shuffle=True, seed=seed)
    stages = [
        kd.Stage(
            [], optimizer=adam(epochs["labels"] * len(train)), epochs=epochs["labels"]
        )
    ]
    if method != "student":
        first = kd.Stage(
            first_stage(method),
            trains="stack2" if method == "FitNet" else "stack3",
            label_weight=0.0,
            optimizer=adam(epochs["first"] * len(train)),
            epochs=epochs["first"],
        )
        stages.insert(0, first)
    distiller = kd.Distiller(student, teacher)
    distiller.compile("adam", LOSS)
    kd.fit_stages(distiller, stages, train, verbose=0)
    return student


def run(runs, data, seed):
    """Train and evaluate all models with one seed."""
    epochs = runs.settings["epochs"]
    file = runs.file.parent / f"teacher_{seed}.keras"
    teacher = trained_teacher(data, file, epochs["teacher"], seed)
    few = data.train.few(runs.settings["train_size"], seed)
    models = {"teacher": lambda: teacher}
    for method in METHODS:
        models[method] = lambda method=method: trained_student(
            data, few, teacher, method, epochs, seed
        )
    for name, train in models.items():
        result = runs.once(
            name,
            seed,
            lambda train=train: (
                100 - 100 * kd.analysis.wrong(train(), data.test).mean()
            ),
        )
        print(name, f"seed {seed}: {result:.2f} %", flush=True)


def report(runs):
    ours = {name: runs.summary(name) for name in runs.names}
    name = f"ours, {runs.settings['dataset']}"
    print(kd.analysis.table([{"": "paper, CIFAR-10", **PAPER}, {"": name, **ours}]))
    print(
        f"\nTest accuracy in %, last epoch, mean ± std; "
        f"seeds: {len(runs['teacher'])}. Settings: {runs.settings}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS["labels"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/yim2017_fsp")
    args = parser.parse_args()
    epochs = {**EPOCHS, "labels": args.epochs}
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        epochs, args.out = dict.fromkeys(EPOCHS, 1), args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    settings = {"dataset": args.dataset, "train_size": size, "epochs": epochs}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, seed)
    report(runs)


if __name__ == "__main__":
    main()
