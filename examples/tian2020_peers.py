"""Tian, Krishnan, Isola 2020: the table of peers, on data at hand.

    python examples/tian2020_peers.py
    python examples/tian2020_peers.py --dataset cifar10_jpeg --train-size 10000

Twelve methods on one teacher and one student, each at its recommended weight beside the
labels; FitNets, FSP, AB and FT in two stages, first the layers, then labels. The
stand-in protocol: residual nets of 20 and 8 layers in place of wide residual nets of 40
and 16; student and teacher see the same `--train-size` samples. Nothing was tuned.
Finished cells are kept in `--out` and not repeated.
"""

import argparse
import dataclasses
import pathlib

import keras

import keras_distill as kd
from keras_distill import losses

STAGES = ("stack1", "stack2", "stack3")
NETS = {"teacher": {"depth": 20, "width": 16}, "student": {"depth": 8, "width": 16}}
SMOKE_NETS = {name: {"depth": 8, "width": 4} for name in NETS}
TRAIN_SIZE, BATCH = {"digits": 400}, 64
EPOCHS = {"teacher": 40, "student": 60}
# Accuracy on CIFAR-100 in %, WRN-40-2 to WRN-16-2.
PAPER = {
    "teacher": 75.61,
    "alone": 73.26,
    "KD": 74.92,
    "FitNet": 73.58,
    "AT": 74.08,
    "SP": 73.83,
    "CC": 73.56,
    "VID": 74.11,
    "RKD": 73.35,
    "PKT": 74.54,
    "AB": 72.50,
    "FT": 73.25,
    "FSP": 72.91,
    "NST": 73.68,
}


def term(loss, tap, weight=None):
    name = f"{loss.name}_{tap if isinstance(tap, str) else tap[-1]}"
    return kd.Term(loss, tap, tap, weight, name=name)


def beside_labels(*terms):
    return lambda teacher: {"terms": [make() for make in terms]}


def before_labels(terms):
    """Two stages: the layers without labels, then the student alone."""
    return lambda teacher: [{"terms": terms(teacher), "label_weight": 0.0}, {}]


def boundaries(teacher):
    taps = [kd.Tap(stage, side="input") for stage in STAGES]
    return [
        kd.Term(losses.ActivationBoundary(), tap, tap, name=f"ab_{tap.path}")
        for tap in taps
    ]


def flows(teacher):
    pairs = zip(("stem_relu", *STAGES), STAGES, strict=False)
    return [term(losses.FlowMatrix(), pair) for pair in pairs]


def methods(images, epochs):
    def factors(teacher):
        paraphraser = kd.adapters.Paraphraser(0.5)
        paraphraser.train_on(teacher, "stack3", images, epochs=epochs, verbose=0)
        loss = losses.FactorTransfer(paraphraser)
        return {"terms": [term(loss, "stack3")]}

    return {
        "alone": None,
        "KD": beside_labels(lambda: kd.Term(losses.SoftTarget(4.0), weight=0.9)),
        "FitNet": before_labels(lambda teacher: [term(losses.Hint(), "stack2")]),
        "AT": lambda teacher: {
            "terms": [term(losses.AttentionMap(), stage) for stage in STAGES]
        },
        "SP": beside_labels(lambda: term(losses.SimilarityMatrix(), "stack3")),
        "CC": beside_labels(lambda: term(losses.CorrelationCongruence(), "pool")),
        "VID": lambda teacher: {
            "terms": [term(losses.VariationalInformation(), stage) for stage in STAGES]
        },
        "RKD": beside_labels(
            lambda: term(losses.DistanceRelation(), "pool"),
            lambda: term(losses.AngleRelation(), "pool"),
        ),
        "PKT": beside_labels(lambda: term(losses.ConditionalProbability(), "pool")),
        "AB": before_labels(boundaries),
        "FT": factors,
        "FSP": before_labels(flows),
        "NST": beside_labels(lambda: term(losses.NeuronSelectivity(), "stack3")),
    }


def net(data, seed, shape):
    keras.utils.set_random_seed(seed)
    return kd.models.resnet(data.input_shape, data.classes, **shape)


def fit(model, samples, epochs, seed, callbacks=(), eager=False):
    train = kd.data.batches(
        samples, BATCH, shuffle=True, seed=seed, drop_remainder=True
    )
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    labels = getattr(model, "label_source", 1.0) > 0
    model.compile(
        keras.optimizers.Adam(schedule), loss if labels else None, run_eagerly=eager
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
    parser.add_argument("--out", type=pathlib.Path, default="runs/tian2020_peers")
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
        methods(data.train.images, epochs["student"]),
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
        row["paper, CIFAR-100"] = PAPER[row["method"]]
    print(kd.analysis.table(rows))
    print(
        f"\nTest accuracy in %, last epoch; seeds: {args.seeds}. Stand-in: {settings}."
    )


if __name__ == "__main__":
    main()
