"""Tang et al. 2020, Furlanello et al. 2018: what is left of soft targets, part by part.

    python examples/tang2020_targets.py
    python examples/tang2020_targets.py --dataset cifar10_jpeg --train-size 10000

The student learns from labels beside a target that keeps one part of the teacher's
prediction: its top, its confidence in the true class, the likeness of its classes; and
from labels weighed by its confidence. The stand-in protocol: residual nets of 20 and 8
layers in place of 56 and 20; student and teacher see the same `--train-size` samples.
Nothing was tuned. Finished cells are kept in `--out` and not repeated.
"""

import argparse
import dataclasses
import pathlib

import keras

import keras_distill as kd
from keras_distill import losses, targets

NETS = {"teacher": {"depth": 20, "width": 16}, "student": {"depth": 8, "width": 16}}
SMOKE_NETS = {name: {"depth": 8, "width": 4} for name in NETS}
TRAIN_SIZE, BATCH = {"digits": 400}, 64
EPOCHS = {"teacher": 40, "student": 60}
# Accuracy on CIFAR-100 in %, ResNet-56 to ResNet-20; the last two are other papers'.
PAPER = {
    "teacher": 75.68,
    "alone": 72.51,
    "label smoothing": 73.87,
    "KD": 75.94,
    "KD-pt": 75.08,
    "KD-sim": 74.30,
    "KD-rel": 74.14,
    "KD-pt+sim": 75.24,
    "KD-topk": 76.17,
}


def soft(make_target, temperature=4.0, weight=0.9):
    """Give a method: labels beside soft targets made of the teacher's."""

    def method(teacher):
        target = make_target and make_target(teacher)
        term = kd.Term(losses.SoftTarget(temperature, target=target), weight=weight)
        return {"terms": [term], "label_weight": 1 - weight}

    return method


def similarity(teacher):
    return targets.ClassSimilarity(teacher.get_layer("logits").kernel.numpy().T)


def weighted_labels(teacher):
    return {"terms": [kd.Term(losses.ConfidenceWeightedLabel())], "label_weight": 0.0}


# Digits that are often taken for each other, in place of CIFAR-100's super-classes.
GROUPS = [0, 1, 2, 3, 4, 3, 0, 1, 3, 4]
METHODS = {
    "alone": None,
    "label smoothing": soft(lambda teacher: targets.Uniform(), 1.0, 0.1),
    "KD": soft(None),
    "KD-pt": soft(lambda teacher: targets.TrueClass()),
    "KD-sim": soft(similarity),
    "KD-rel": soft(lambda teacher: targets.SuperClasses(GROUPS), 1.0, 0.5),
    "KD-pt+sim": soft(
        lambda teacher: targets.Mixed(targets.TrueClass(), similarity(teacher), 0.3)
    ),
    "KD-topk": soft(lambda teacher: targets.TopK(3)),
    "Tf-KD": soft(lambda teacher: targets.VirtualTeacher(0.99), 20.0, 0.1),
    "DKPP": soft(lambda teacher: targets.Permuted(), 1.0, 0.5),
    "CWTM": weighted_labels,
}


def net(data, seed, shape):
    keras.utils.set_random_seed(seed)
    return kd.models.resnet(data.input_shape, data.classes, **shape)


def fit(model, samples, epochs, seed, callbacks=(), eager=False):
    train = kd.data.batches(
        samples, BATCH, shuffle=True, seed=seed, drop_remainder=True
    )
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=eager,
    )
    model.fit(train, epochs=epochs, verbose=0, callbacks=list(callbacks))


def trained_teacher(data, shape, file, epochs, seed, eager):
    if file.exists():
        return keras.saving.load_model(file)
    teacher = net(data, seed, shape)
    fit(teacher, data.train, epochs, seed, eager=eager)
    teacher.save(file)
    return teacher


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/tang2020_targets")
    args = parser.parse_args()
    nets, epochs = NETS, {**EPOCHS, "student": args.epochs}
    if args.smoke:
        args.train_size, args.seeds, args.out = 2 * BATCH, 1, args.out / "smoke"
        nets, epochs = SMOKE_NETS, dict.fromkeys(EPOCHS, 1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    data = dataclasses.replace(data, train=data.train.few(size))
    settings = {"dataset": args.dataset, "train_size": size, "epochs": epochs}
    rows = kd.analysis.compare(
        METHODS,
        student=lambda seed: net(data, 1000 + seed, nets["student"]),
        teacher=lambda seed: trained_teacher(
            data,
            nets["teacher"],
            args.out / f"teacher_{seed}.keras",
            epochs["teacher"],
            seed,
            args.smoke,
        ),
        fit=lambda model, seed, callbacks: fit(
            model, data.train, epochs["student"], seed, callbacks, args.smoke
        ),
        judge=lambda model: 100 - 100 * kd.analysis.wrong(model, data.test).mean(),
        runs=kd.analysis.Runs(args.out / "accuracies.json", settings),
        seeds=args.seeds,
    )
    for row in rows:
        row["paper, CIFAR-100"] = PAPER.get(row["method"])
    print(kd.analysis.table(rows))
    print(
        f"\nTest accuracy in %, last epoch; seeds: {args.seeds}. Stand-in: {settings}."
    )


if __name__ == "__main__":
    main()
