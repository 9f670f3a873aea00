"""You et al. 2017: several teachers, their mean prediction and their votes on triplets.

    python examples/you2017_teachers.py
    python examples/you2017_teachers.py --dataset cifar10_jpeg --train-size 10000

A student learns from labels and the soft targets of one teacher, or of the mean of three
teachers, alone or with votes: of two images, the one that most teachers place nearer to a
third one at a middle layer should be nearer for the student too. Small-scale stand-in:
residual networks of 8, 14 and 20 layers and a student of 8 instead of the paper's plain
networks; the student sees few samples, the teachers all. The paper's results were not
available. Nothing was tuned.
"""

import argparse
import dataclasses
import pathlib

import compare
import keras

import keras_distill as kd
from keras_distill import losses

DEPTHS = (20, 14, 8)
WIDTHS, SMOKE_WIDTHS = {"teacher": 16, "student": 8}, {"teacher": 4, "student": 4}
TRAIN_SIZE, BATCH, EPOCHS = compare.TRAIN_SIZE, compare.BATCH, compare.EPOCHS
MIDDLE = tuple(f"{member}/stack2" for member in range(len(DEPTHS)))


SOFT = kd.Term(losses.SoftTarget(4.0), weight=0.9)
VOTE = kd.Term(losses.VotedTriplet(), student="stack2", teacher=MIDDLE)
BOTH = {"terms": [SOFT, VOTE], "label_weight": 0.1}


def first_teacher(teachers):
    return {"terms": [SOFT], "label_weight": 0.1, "teacher": teachers.models[0]}


METHODS = {
    "alone": None,
    "KD of the first": first_teacher,
    "KD of the mean": {"terms": [SOFT], "label_weight": 0.1},
    "KD of the mean, votes": BOTH,
    "votes": {"terms": [VOTE]},
}


def trained_teachers(data, folder, width, epochs, seed, eager):
    """Return an ensemble with one model per depth, each with its own seed."""
    nets = []
    for index, depth in enumerate(DEPTHS):
        file = folder / f"teacher_{seed}_{index}.keras"
        if not file.exists():
            shape = {"depth": depth, "width": width, "name": f"teacher{index}"}
            teacher = compare.net(data, 10 * seed + index, shape)
            compare.fit(teacher, data.train, epochs, seed, eager=eager)
            teacher.save(file)
        nets.append(keras.saving.load_model(file))
    return kd.EnsembleTeacher(nets)


def accuracy(model, samples):
    """Return the accuracy in % of a model, or of the mean prediction of an ensemble."""
    if isinstance(model, kd.EnsembleTeacher):
        images = keras.Input(samples.images.shape[1:])
        parts = [keras.ops.softmax(member(images)) for member in model.models]
        model = keras.Model(images, keras.layers.average(parts))
    return 100 - 100 * kd.analysis.wrong(model, samples).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/you2017_teachers")
    args = parser.parse_args()
    widths, epochs = WIDTHS, {**EPOCHS, "student": args.epochs}
    if args.smoke:
        args.train_size, args.seeds, args.out = BATCH, 1, args.out / "smoke"
        widths, epochs = SMOKE_WIDTHS, dict.fromkeys(EPOCHS, 1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    whole, data = data, dataclasses.replace(data, train=data.train.few(size))
    settings = {"dataset": args.dataset, "train_size": size, "epochs": epochs}
    rows = kd.analysis.compare(
        METHODS,
        student=lambda seed: compare.net(
            data, 1000 + seed, {"depth": 8, "width": widths["student"]}
        ),
        teacher=lambda seed: trained_teachers(
            data if args.smoke else whole,
            args.out,
            widths["teacher"],
            epochs["teacher"],
            seed,
            args.smoke,
        ),
        fit=lambda model, seed, callbacks: compare.fit(
            model, data.train, epochs["student"], seed, callbacks, args.smoke
        ),
        judge=lambda model: accuracy(model, data.test),
        runs=kd.analysis.Runs(args.out / "accuracies.json", settings),
        seeds=args.seeds,
    )
    print(kd.analysis.table(rows))
    print(
        f"\nTest accuracy in %, last epoch; seeds: {args.seeds}. Settings: {settings}."
    )


if __name__ == "__main__":
    main()
