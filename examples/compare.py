"""Methods side by side: one teacher, one student, one data set, several seeds.

    python examples/compare.py
    python examples/compare.py --dataset cifar10_jpeg --train-size 10000
    python examples/compare.py --methods KD,AT,KD+AT --seeds 5

Every method trains the same student from the same start for the same epochs, with the
weights that its docstring recommends; labels count fully in each. Accuracy is that of
the last epoch on a fifth of the training data that is held out from student and
teacher, so that nothing is chosen on the test split; `--test` shows the test split
instead. Finished cells are kept in `--out` and not repeated, so the list of methods and
the seeds can grow.
"""

import argparse
import dataclasses
import pathlib
import time

import keras
import numpy as np

import keras_distill as kd
from keras_distill import losses, targets

STAGES = ("stack1", "stack2", "stack3")
TEACHER, STUDENT = {"depth": 20, "width": 16}, {"depth": 8, "width": 16}
TRAIN_SIZE, BATCH = {"digits": 400}, 64
EPOCHS = {"teacher": 40, "student": 60}


def at(loss, taps=STAGES):
    """Give a term a layer for a loss on single layers."""
    return [
        kd.Term(loss(), tap, tap, name=f"{loss.__name__.lower()}_{tap}") for tap in taps
    ]


def soft(**arguments):
    return [kd.Term(losses.SoftTarget(4.0, **arguments))]


def flow():
    pairs = list(zip(("stem_relu", *STAGES), STAGES, strict=False))
    return [kd.Term(losses.FlowMatrix(), p, p, name=f"flow_{p[1]}") for p in pairs]


METHODS = {
    "alone": list,
    "KD": soft,
    "KD-topk": lambda: soft(target=targets.TopK(3)),
    "KD-pt": lambda: soft(target=targets.TrueClass()),
    "label smoothing": lambda: [
        kd.Term(losses.SoftTarget(1.0, target=targets.Uniform()), weight=0.1)
    ],
    "Tf-KD": lambda: [
        kd.Term(
            losses.SoftTarget(20.0, target=targets.VirtualTeacher(0.99)), weight=0.1
        )
    ],
    "DKPP": lambda: soft(target=targets.Permuted()),
    "reverse KL": lambda: [kd.Term(losses.ReverseSoftTarget(4.0))],
    "Jensen-Shannon": lambda: [kd.Term(losses.JensenShannon(4.0))],
    "logits": lambda: [kd.Term(losses.LogitRegression(centred=True), weight=0.1)],
    "DKD": lambda: [kd.Term(losses.DecoupledTarget(4.0))],
    "DIST": lambda: [kd.Term(losses.PredictionCorrelation(4.0))],
    "CWTM": lambda: [kd.Term(losses.ConfidenceWeightedLabel())],
    "ranking": lambda: [kd.Term(losses.Ranking(3))],
    "FitNet": lambda: at(losses.Hint, ("stack2",)),
    "AT": lambda: at(losses.AttentionMap),
    "F-ActT": lambda: at(losses.FullActivation),
    "FSP": flow,
    "NST": lambda: at(losses.NeuronSelectivity, ("stack3",)),
    "AB": lambda: at(losses.ActivationBoundary),
    "VID": lambda: at(losses.VariationalInformation),
    "RKD-D": lambda: at(losses.DistanceRelation, ("pool",)),
    "RKD-A": lambda: at(losses.AngleRelation, ("pool",)),
    "SP": lambda: at(losses.SimilarityMatrix, ("stack3",)),
    "CC": lambda: at(losses.CorrelationCongruence, ("pool",)),
    "PKT": lambda: at(losses.ConditionalProbability, ("pool",)),
    "DarkRank": lambda: at(losses.SoftRank, ("pool",)),
    "KD+AT": lambda: soft() + at(losses.AttentionMap),
    "KD+SP": lambda: soft() + at(losses.SimilarityMatrix, ("stack3",)),
}


def net(data, seed, shape):
    keras.utils.set_random_seed(seed)
    return kd.models.resnet(data.input_shape, data.classes, **shape)


def fit(model, samples, epochs, seed, eager=False):
    """Train; give the seconds of a step, the first epoch left out where there are more."""
    train = kd.data.batches(
        samples, BATCH, shuffle=True, seed=seed, drop_remainder=True
    )
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=eager,
    )
    ends = [time.perf_counter()]
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    model.fit(train, epochs=epochs, verbose=0, callbacks=[clock])
    ends = ends[min(1, epochs - 1) :]
    return (ends[-1] - ends[0]) / (len(ends) - 1) / len(train)


def run(runs, data, methods, seed, eager):
    """Fill the cells of one seed."""
    epochs = runs.settings["epochs"]
    file = runs.file.parent / f"teacher_{seed}.keras"
    if not file.exists():
        teacher = net(data, seed, TEACHER)
        fit(teacher, data.train, epochs["teacher"], seed, eager)
        teacher.save(file)
    teacher = keras.saving.load_model(file)

    def train(method):
        student = model = net(data, 1000 + seed, STUDENT)
        if method != "alone":
            model = kd.Distiller(student, teacher, terms=METHODS[method]())
        seconds = fit(model, data.train, epochs["student"], seed, eager)
        return {"accuracy": accuracy(student, data.test), "seconds": seconds}

    runs.once("teacher", seed, lambda: {"accuracy": accuracy(teacher, data.test)})
    for method in methods:
        found = runs.once(method, seed, lambda method=method: train(method))
        print(f"{method}, seed {seed}: {found['accuracy']:.2f} %", flush=True)


def accuracy(model, samples):
    return 100 - 100 * kd.analysis.wrong(model, samples).mean()


def report(runs, methods, seeds, out):
    rows = []
    baseline = median_seconds(runs, "alone", seeds)
    for method in ("teacher", *methods):
        found = [one["accuracy"] for one in runs[method][:seeds]]
        row = {"method": method, "accuracy %": f"{np.mean(found):.2f}"}
        if len(found) > 1:
            row["deviation"] = f"{np.std(found):.2f}"
        if method != "teacher":
            step = median_seconds(runs, method, seeds) / baseline
            row["step, of alone"] = f"{step:.2f}"
        rows.append(row)
    print(kd.analysis.table(rows))
    plot(runs, methods, seeds, out / "accuracies.png")


def median_seconds(runs, method, seeds):
    return float(np.median([one["seconds"] for one in runs[method][:seeds]]))


def plot(runs, methods, seeds, file):
    try:
        from matplotlib import figure
    except ImportError:
        print("\nNo plot: matplotlib is not installed (pip install matplotlib).")
        return
    drawing = figure.Figure(figsize=(6, 1 + 0.25 * len(methods)), layout="constrained")
    axes = drawing.subplots()
    for place, method in enumerate(reversed(methods)):
        found = [one["accuracy"] for one in runs[method][:seeds]]
        axes.plot(found, [place] * len(found), "o", color="tab:blue", alpha=0.4)
        axes.plot(np.mean(found), place, "|", color="black", markersize=12)
    axes.set_yticks(range(len(methods)), list(reversed(methods)))
    axes.set_xlabel("accuracy %, a point a seed, a bar the mean")
    drawing.savefig(file, dpi=120)
    print(f"\nPlot: {file}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--methods", help="names, joined by commas; default: all")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", action="store_true", help="judge on the test split")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/compare")
    args = parser.parse_args()
    methods = args.methods.split(",") if args.methods else list(METHODS)
    if unknown := set(methods) - set(METHODS):
        parser.error(f"no method {sorted(unknown)}; there are {', '.join(METHODS)}")
    methods = list(dict.fromkeys(["alone", *methods]))
    epochs = {**EPOCHS, "student": args.epochs}
    if args.smoke:
        args.train_size, args.seeds, args.out = 2 * BATCH + 32, 1, args.out / "smoke"
        epochs = dict.fromkeys(EPOCHS, 1)
    data = kd.data.load(args.dataset)
    if not args.test:
        train, held_out = data.train.split(0.2)
        data = dataclasses.replace(data, train=train, test=held_out)
    size = args.train_size or TRAIN_SIZE.get(args.dataset, len(data.train))
    data = dataclasses.replace(data, train=data.train.few(size))
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"dataset": args.dataset, "train_size": size, "epochs": epochs}
    settings["judged on"] = "test" if args.test else "held out"
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, methods, seed, eager=args.smoke)
    report(runs, methods, args.seeds, args.out)
    print(f"{args.seeds} seed(s), last epoch. {runs.settings}")


if __name__ == "__main__":
    main()
