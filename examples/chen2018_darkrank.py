"""Chen et al. 2018: DarkRank, distillation of the order of neighbors.

    python examples/chen2018_darkrank.py
    python examples/chen2018_darkrank.py --dataset mnist --train-size 2000

An embedding is trained on the classes 0 to 5 and evaluated on the unseen classes 6 to 9:
for each test image, the others are ranked by distance, and the mean average precision
measures how well images of its class come first. The student is trained with the paper's
losses on labels (classification, verification, triplets) and soft or hard DarkRank.
Small-scale stand-in: residual networks of 20 and 8 layers instead of Inception-BN and
NIN-BN, digits instead of CUHK03 and Market1501; the paper reports another metric, so its
results are not shown. Nothing was tuned.
"""

import argparse
import dataclasses
import pathlib

import compare
import keras
import numpy as np
from sklearn.metrics import label_ranking_average_precision_score

import keras_distill as kd
from keras_distill import losses

SEEN = range(6)
NETS = {"teacher": {"depth": 20, "width": 16}, "student": {"depth": 8, "width": 8}}
SMOKE_NETS = {name: {"depth": 8, "width": 4} for name in NETS}
TRAIN_SIZE, BATCH = {"digits": 300}, compare.BATCH
EPOCHS = {"teacher": 30, "student": 60}


LABELS = [
    kd.Term(losses.Verification(), student="pool"),
    kd.Term(losses.ClassTriplet(), student="pool"),
]
SOFT = kd.Term(losses.SoftRank(), student="pool", teacher="pool")
HARD = kd.Term(losses.HardRank(items=10), student="pool", teacher="pool")
METHODS = {
    "alone": None,
    "embedding": {"terms": LABELS},
    "embedding, KD": {"terms": [*LABELS, kd.Term(losses.SoftTarget(4.0))]},
    "embedding, DarkRank soft": {"terms": [*LABELS, SOFT]},
    "embedding, DarkRank hard": {"terms": [*LABELS, HARD]},
}


def mean_average_precision(model, samples, layer="pool"):
    """Rank the other samples for each sample; return the mean average precision in %."""
    embed = keras.Model(model.input, model.get_layer(layer).output)
    vectors = embed.predict(samples.images, verbose=0)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    others = ~np.eye(len(samples), dtype=bool)
    shape = len(samples), len(samples) - 1
    nearness = (vectors @ vectors.T)[others].reshape(shape)
    same = (samples.labels[:, None] == samples.labels[None])[others].reshape(shape)
    return 100 * label_ranking_average_precision_score(same, nearness)


def trained_teacher(data, shape, file, epochs, seed, eager):
    if file.exists():
        return keras.saving.load_model(file)
    teacher = compare.net(data, seed, shape)
    compare.fit(teacher, data.train, epochs, seed, eager=eager)
    teacher.save(file)
    return teacher


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/chen2018_darkrank")
    args = parser.parse_args()
    nets, epochs = NETS, {**EPOCHS, "student": args.epochs}
    if args.smoke:
        args.train_size, args.seeds, args.out = BATCH, 1, args.out / "smoke"
        nets, epochs = SMOKE_NETS, dict.fromkeys(EPOCHS, 1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    train = data.train.only(SEEN)
    size = args.train_size or TRAIN_SIZE.get(args.dataset, len(train))
    # The distances of all pairs must fit in memory.
    unseen = data.test.without(SEEN)[:2000]
    data = dataclasses.replace(data, train=train.few(size), test=unseen)
    settings = {"dataset": args.dataset, "train_size": size, "epochs": epochs}
    rows = kd.analysis.compare(
        METHODS,
        student=lambda seed: compare.net(data, 1000 + seed, nets["student"]),
        teacher=lambda seed: trained_teacher(
            data,
            nets["teacher"],
            args.out / f"teacher_{seed}.keras",
            epochs["teacher"],
            seed,
            args.smoke,
        ),
        fit=lambda model, seed, callbacks: compare.fit(
            model, data.train, epochs["student"], seed, callbacks, args.smoke
        ),
        judge=lambda model: mean_average_precision(model, data.test),
        runs=kd.analysis.Runs(args.out / "precisions.json", settings),
        seeds=args.seeds,
    )
    print(kd.analysis.table(rows))
    print(
        "\nMean average precision in % of unseen classes, last epoch; "
        f"seeds: {args.seeds}. Settings: {settings}."
    )


if __name__ == "__main__":
    main()
