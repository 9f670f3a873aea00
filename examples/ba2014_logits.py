"""Ba, Caruana 2014: a shallow network mimics the logits of deep networks.

    python examples/ba2014_logits.py
    python examples/ba2014_logits.py --dataset mnist --epochs 20

A perceptron with one hidden layer learns from labels, from the logits of one
convolutional network, and from the mean logits of an ensemble. The mimics use no labels.
Small-scale stand-in: digits instead of CIFAR-10, small networks, no augmentation. Nothing
was tuned. Finished runs are stored in `--out` and not repeated.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

TEACHER_FILTERS, MEMBERS, UNITS, BATCH = (16, 32), 4, 64, 64
EPOCHS = {"teacher": 60, "student": 200}
# Errors on CIFAR-10 in %, from memory, not checked against the paper.
PAPER = {
    "deep net": 12.0,
    "ensemble of 4": 11.0,
    "shallow net on labels": 21.8,
    "shallow net mimics one": 15.1,
    "shallow net mimics 4": 14.2,
}


def fit(model, samples, epochs, seed, labels=True):
    train = kd.data.batches(samples, BATCH, shuffle=True, seed=seed)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss if labels else None)
    model.fit(train, epochs=epochs, verbose=0)


def trained_teachers(data, out, epochs, seed):
    teachers = []
    for member in range(MEMBERS):
        file = out / f"teacher_{seed}_{member}.keras"
        if not file.exists():
            keras.utils.set_random_seed(100 * seed + member)
            net = kd.models.conv_net(
                data.input_shape,
                data.classes,
                filters=TEACHER_FILTERS,
                name=f"member{member}",
            )
            fit(net, data.train, epochs, seed)
            net.save(file)
        teachers.append(keras.saving.load_model(file))
    return teachers


def mean_of(models, data):
    """Return the ensemble as one model, to count its errors."""
    images = keras.Input(data.input_shape)
    return keras.Model(images, keras.layers.average([net(images) for net in models]))


def trained_student(data, teacher, epochs, seed):
    """Train on the logits of a teacher, or on labels if `teacher` is None."""
    keras.utils.set_random_seed(1000 + seed)
    student = kd.models.mlp(data.input_shape, data.classes, units=(UNITS,))
    if teacher is None:
        fit(student, data.train, epochs, seed)
        return student
    mimic = kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(kd.losses.LogitRegression(centred=True))],
        label_weight=0.0,
    )
    fit(mimic, data.train, epochs, seed, labels=False)
    return student


def run(runs, data, seed):
    """Train and evaluate all models with one seed."""
    epochs = runs.settings["epochs"]
    nets = trained_teachers(data, runs.file.parent, epochs["teacher"], seed)
    ensemble = kd.EnsembleTeacher(nets, average="geometric")
    students = {
        "shallow net on labels": None,
        "shallow net mimics one": nets[0],
        f"shallow net mimics {MEMBERS}": ensemble,
    }
    models = {
        "deep net": lambda: nets[0],
        f"ensemble of {MEMBERS}": lambda: mean_of(nets, data),
    }
    for name, teacher in students.items():
        models[name] = lambda teacher=teacher: trained_student(
            data, teacher, epochs["student"], seed
        )
    for name, train in models.items():
        error = runs.once(
            name,
            seed,
            lambda train=train: 100 * kd.analysis.wrong(train(), data.test).mean(),
        )
        print(name, f"seed {seed}: {error:.2f} %", flush=True)


def report(runs):
    ours = f"error %, {runs.settings['dataset']}"
    rows = [
        {"net": name, "paper, CIFAR-10": PAPER[name], ours: runs.summary(name)}
        for name in runs.names
    ]
    print(kd.analysis.table(rows))
    print(
        f"\nTest error in %, last epoch, mean ± std; "
        f"seeds: {len(runs['deep net'])}. Settings: {runs.settings}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/ba2014_logits")
    args = parser.parse_args()
    epochs = {**EPOCHS, "student": args.epochs}
    if args.smoke:
        args.dataset, args.seeds = "digits", 1
        epochs, args.out = dict.fromkeys(EPOCHS, 1), args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, "epochs": epochs}
    runs = kd.analysis.Runs(args.out / "errors.json", settings)
    for seed in range(args.seeds):
        run(runs, data, seed)
    report(runs)


if __name__ == "__main__":
    main()
