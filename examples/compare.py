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

import keras
import numpy as np

import keras_distill as kd
from keras_distill import losses, targets

STAGES = ("stack1", "stack2", "stack3")
NETS = {"teacher": {"depth": 20, "width": 16}, "student": {"depth": 8, "width": 16}}
SMOKE_NETS = {name: {"depth": 8, "width": 4} for name in NETS}
TRAIN_SIZE, BATCH = {"digits": 400}, 64
EPOCHS = {"teacher": 40, "student": 60}


def at(loss, taps=STAGES):
    """Give a term a layer for a loss on single layers."""
    return [
        kd.Term(loss(), tap, tap, name=f"{loss.__name__.lower()}_{tap}") for tap in taps
    ]


def before(loss):
    """Give a term a stage for a loss on values before the activation."""
    taps = [kd.Tap(stage, side="input") for stage in STAGES]
    return [kd.Term(loss(), tap, tap, name=f"before_{tap.path}") for tap in taps]


def soft(temperature=4.0, weight=None, **arguments):
    return [kd.Term(losses.SoftTarget(temperature, **arguments), weight=weight)]


def flow():
    pairs = list(zip(("stem_relu", *STAGES), STAGES, strict=False))
    return [kd.Term(losses.FlowMatrix(), p, p, name=f"flow_{p[1]}") for p in pairs]


def gradient(loss, tap):
    return [kd.Term(loss(), tap, tap)]


TERMS = {
    "KD": soft,
    "KD-topk": lambda: soft(target=targets.TopK(3)),
    "KD-pt": lambda: soft(target=targets.TrueClass()),
    "label smoothing": lambda: soft(1.0, 0.1, target=targets.Uniform()),
    "Tf-KD": lambda: soft(20.0, 0.1, target=targets.VirtualTeacher(0.99)),
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
    "AB": lambda: before(losses.ActivationBoundary),
    "VID": lambda: at(losses.VariationalInformation),
    "gradient AT": lambda: gradient(losses.GradientAttention, "label_gradient"),
    "Jacobian": lambda: gradient(losses.Jacobian, "class_gradient"),
    "RKD-D": lambda: at(losses.DistanceRelation, ("pool",)),
    "RKD-A": lambda: at(losses.AngleRelation, ("pool",)),
    "SP": lambda: at(losses.SimilarityMatrix, ("stack3",)),
    "CC": lambda: at(losses.CorrelationCongruence, ("pool",)),
    "PKT": lambda: at(losses.ConditionalProbability, ("pool",)),
    "DarkRank": lambda: at(losses.SoftRank, ("pool",)),
    "KD+AT": lambda: soft() + at(losses.AttentionMap),
    "KD+SP": lambda: soft() + at(losses.SimilarityMatrix, ("stack3",)),
}
METHODS = {"alone": None}
for _name, _terms in TERMS.items():
    METHODS[_name] = lambda teacher, terms=_terms: {"terms": terms()}


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


def accuracy(model, samples):
    return 100 - 100 * kd.analysis.wrong(model, samples).mean()


def run(runs, data, nets, methods, seeds, eager):
    epochs = runs.settings["epochs"]

    def teacher(seed):
        file = runs.file.parent / f"teacher_{seed}.keras"
        if not file.exists():
            made = net(data, seed, nets["teacher"])
            fit(made, data.train, epochs["teacher"], seed, eager=eager)
            made.save(file)
        return keras.saving.load_model(file)

    return kd.analysis.compare(
        {name: METHODS[name] for name in methods},
        student=lambda seed: net(data, 1000 + seed, nets["student"]),
        teacher=teacher,
        fit=lambda model, seed, callbacks: fit(
            model, data.train, epochs["student"], seed, callbacks, eager
        ),
        judge=lambda model: accuracy(model, data.test),
        runs=runs,
        seeds=seeds,
    )


def plot(runs, methods, seeds, file):
    try:
        from matplotlib import figure
    except ImportError:
        print("\nNo plot: matplotlib is not installed (pip install matplotlib).")
        return
    drawing = figure.Figure(figsize=(6, 1 + 0.25 * len(methods)), layout="constrained")
    axes = drawing.subplots()
    for place, method in enumerate(reversed(methods)):
        found = [cell["figure"] for cell in runs[method][:seeds]]
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
    nets, epochs = NETS, {**EPOCHS, "student": args.epochs}
    if args.smoke:
        args.train_size, args.seeds, args.out = 2 * BATCH + 32, 1, args.out / "smoke"
        nets, epochs = SMOKE_NETS, dict.fromkeys(EPOCHS, 1)
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
    rows = run(runs, data, nets, methods, args.seeds, eager=args.smoke)
    print(kd.analysis.table(rows))
    plot(runs, methods, args.seeds, args.out / "accuracies.png")
    print(f"{args.seeds} seed(s), last epoch. {runs.settings}")


if __name__ == "__main__":
    main()
