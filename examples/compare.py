"""Comparison of all methods: one teacher, one student, one data set, several seeds.

    python examples/compare.py
    python examples/compare.py --dataset cifar10_jpeg --train-size 10000
    python examples/compare.py --methods KD,AT,KD+AT --seeds 5
    python examples/compare.py --test --suggested --out runs/suggested

Each method trains the same student from the same initial weights for the same number of
epochs, on `--train-size` of the teacher's samples (400 digits, or all of other data
sets), with the weights recommended in the docstrings. Soft targets have weight 0.9 and
labels 0.1; with other losses, labels have weight 1; FitNet, AB and FSP first train the
layers and then on labels alone, each stage for all epochs. Accuracy is that of the last
epoch on a fifth of the training data, held out from student and teacher, so that nothing
is selected on the test split; `--test` reports the test split instead. With `--cached`,
methods that only need the teacher's logits read them from disk. With `--suggested`, no
weight is that of a docstring: labels have weight 1 and each term the weight that
`kd.suggest_weights` measures, in one stage; `--share` is how many times as hard as the
labels each then pulls. Finished runs are stored in `--out` and not repeated, so methods
and seeds can be added.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np

import keras_distill as kd
from keras_distill import losses, targets

STAGES = ("stack1", "stack2", "stack3")
BEFORE = tuple(kd.Tap(stage, side="input") for stage in STAGES)
FLOWS = tuple(zip(("stem_relu", *STAGES), STAGES, strict=False))
MIRROR = (kd.Tap.input_gradient(), kd.Tap.input_gradient(mirrored=True))
NETS = {"teacher": {"depth": 20, "width": 16}, "student": {"depth": 8, "width": 16}}
SMOKE_NETS = {name: {"depth": 8, "width": 4} for name in NETS}
TRAIN_SIZE, BATCH = {"digits": 400}, 64
EPOCHS = {"teacher": 40, "student": 60}
# Groups of classes that are often confused; in CIFAR-10, vehicles and animals.
SUPER_CLASSES = {
    "digits": [0, 1, 2, 3, 4, 3, 0, 1, 3, 4],
    "cifar10": [0, 0, 1, 1, 1, 1, 1, 1, 0, 0],
}


def on(taps, loss):
    """Return a term for each tap, or tuple of taps, used for student and teacher."""
    names = [tap[-1] if isinstance(tap, tuple) else tap for tap in taps]
    return [
        kd.Term(loss, tap, tap, name=f"{loss.name}_{getattr(name, 'path', name)}")
        for tap, name in zip(taps, names, strict=True)
    ]


def heads_on(stages, loss):
    """Return a term for each stage's head, which learns the teacher's logits."""
    names = {stage: f"{loss.name}_{stage}" for stage in stages}
    return [kd.Term(loss, student=stage, name=name) for stage, name in names.items()]


def with_labels(*terms, **arguments):
    return {"terms": [t for part in terms for t in part], **arguments}


def before_labels(terms):
    """Return two stages: the layers without labels, then labels alone."""
    return [{"terms": terms, "label_weight": 0.0}, {}]


def soft(target=None, temperature=4.0, weight=0.9):
    term = kd.Term(losses.SoftTarget(temperature, target=target), weight=weight)
    return {"terms": [term], "label_weight": 1 - weight}


def similarity(teacher):
    kernel = keras.ops.convert_to_numpy(teacher.get_layer("logits").kernel)
    return targets.ClassSimilarity(kernel.T)


def logits(loss, weight=None):
    return with_labels([kd.Term(loss, weight=weight)])


def standardized(loss):
    term = kd.Term(losses.StandardizedLogits(loss), weight=9.0)
    return {"terms": [term], "label_weight": 0.1}


def regions(loss):
    taps = kd.Tap("pool", side="input"), kd.Tap("logits", side="input")
    return with_labels([kd.Term(losses.ScaleDecoupledLogits(loss), taps, taps)])


def responses(data):
    groups = SUPER_CLASSES.get(data.name.removesuffix("_jpeg"))
    pt = targets.TrueClass()
    # The source's ten epochs.
    curriculum = losses.CurriculumTemperature(max(1, 10 * len(data.train) // BATCH))
    power = losses.SoftTarget(1.0, target=targets.PowerTransform(0.1))
    related = {"KD-rel": soft(targets.SuperClasses(groups), 1.0, 0.5)} if groups else {}
    return {
        "label smoothing": soft(targets.Uniform(), 1.0, 0.1),
        "KD": soft(),
        "KD-pt": soft(pt),
        "KD-sim": lambda teacher: soft(similarity(teacher)),
        **related,
        "KD-pt+sim": lambda teacher: soft(targets.Mixed(pt, similarity(teacher), 0.3)),
        "KD-topk": soft(targets.TopK(3)),
        "hard label": soft(targets.HardLabel(), 1.0, 0.5),
        "Tf-KD": soft(targets.VirtualTeacher(0.99), 20.0, 0.1),
        "DKPP": soft(targets.Permuted(), 1.0, 0.5),
        "CWTM": {
            "terms": [kd.Term(losses.ConfidenceWeightedLabel())],
            "label_weight": 0.0,
        },
        "reverse KL": logits(losses.ReverseSoftTarget(4.0)),
        "Jensen-Shannon": logits(losses.JensenShannon(4.0)),
        "logits": logits(losses.LogitRegression(centred=True), 0.1),
        "DKD": logits(losses.DecoupledTarget(4.0)),
        "KD-standardized": standardized(losses.SoftTarget(2.0)),
        "SDD": regions(losses.SoftTarget(4.0)),
        "DIST": logits(losses.PredictionCorrelation(4.0)),
        "MLKD": logits(losses.MultiLevelLogits()),
        "CTKD": {"terms": [kd.Term(curriculum)], "label_weight": 0.1},
        "TTM": with_labels([kd.Term(power, weight=45.0)]),
        "WTTM": logits(losses.PowerWeightedTarget(0.2)),
        "WSLD": logits(losses.WeightedSoftTarget(2.0)),
        "ranking": logits(losses.Ranking(3)),
    }


def features(data, epochs):
    def factors(teacher):
        paraphraser = kd.adapters.Paraphraser(0.5)
        images = data.train.images
        paraphraser.train_on(teacher, "stack3", images, epochs=epochs, verbose=0)
        return with_labels(on(["stack3"], losses.FactorTransfer(paraphraser)))

    return {
        "FitNet": before_labels(on(["stack2"], losses.Hint())),
        "AT": with_labels(on(STAGES, losses.AttentionMap())),
        "F-ActT": with_labels(on(STAGES, losses.FullActivation())),
        "gradient AT": with_labels(
            on([kd.Tap.input_gradient()], losses.GradientAttention())
        ),
        "flip symmetry": with_labels([kd.Term(losses.FlipSymmetry(), student=MIRROR)]),
        "Jacobian": with_labels(
            on([kd.Tap.input_gradient("first_class")], losses.Jacobian())
        ),
        "FSP": before_labels(on(FLOWS, losses.FlowMatrix())),
        "KDSVD": with_labels(on(FLOWS, losses.SingularFlow())),
        "ICKD": with_labels(on(["stack3"], losses.ChannelCorrelation())),
        "SRD": with_labels(on(["pool"], losses.NormalizedHint())),
        "VkD": with_labels(on(["pool"], losses.OrthogonalHint())),
        "OFA": with_labels(heads_on(STAGES, losses.EnhancedTarget())),
        "cosine": with_labels(on(["stack3"], losses.CosineDistance())),
        "NST": with_labels(on(["stack3"], losses.NeuronSelectivity())),
        "AB": before_labels(on(BEFORE, losses.ActivationBoundary())),
        "OFD": with_labels(on(BEFORE, losses.MarginActivation())),
        "VID": with_labels(on(STAGES, losses.VariationalInformation())),
        "FT": factors,
        "ReviewKD": with_labels(on([STAGES], losses.Review(3))),
    }


def relations(data):
    pool = ["pool"]
    bank = losses.Contrastive(len(data.train), negatives=1024)
    inputs = {"student_inputs": "image", "teacher_inputs": "image"}
    distances, angles = (
        on(pool, loss) for loss in (losses.DistanceRelation(), losses.AngleRelation())
    )
    return {
        "RKD-D": with_labels(distances),
        "RKD-A": with_labels(angles),
        "RKD-DA": with_labels(distances, angles),
        "SP": with_labels(on(["stack3"], losses.SimilarityMatrix())),
        "CC": with_labels(on(pool, losses.CorrelationCongruence())),
        "PKT": with_labels(on(pool, losses.ConditionalProbability())),
        "DarkRank": with_labels(on(pool, losses.SoftRank())),
        "DarkRank hard": with_labels(on(pool, losses.HardRank(items=10))),
        "triplets": with_labels(on(pool, losses.ClassTriplet())),
        "verification": with_labels(on(pool, losses.Verification())),
        "voted triplets": with_labels(on(pool, losses.VotedTriplet())),
        "CRD": with_labels(on(pool, bank), sample_ids="sample_id", **inputs),
        "KD+RKD-DA": with_labels(soft()["terms"], distances, angles, label_weight=0.1),
        "KD+AT": with_labels(
            soft()["terms"], on(STAGES, losses.AttentionMap()), label_weight=0.1
        ),
    }


def every_method(data, epochs):
    """Return all methods by name, as arguments of `kd.analysis.compare`."""
    return {
        "alone": None,
        **responses(data),
        **features(data, epochs),
        **relations(data),
    }


def suggested(method, share=None):
    """Return a method with measured weights beside labels of weight 1, in one stage."""
    if method is None or callable(method):
        return method and (lambda teacher: suggested(method(teacher), share))
    stages = method if isinstance(method, list) else [method]
    terms = [term for stage in stages for term in stage.get("terms", ())]
    for term in terms:
        term.weight = "balanced"
        term.loss.share = share or term.loss.share
    of_all = {name: x for stage in stages for name, x in stage.items()}
    return {**of_all, "terms": terms, "label_weight": 1.0}


def from_cache(method, samples, folder):
    """Let a method that only needs the teacher's logits read them from a cache."""

    def made(teacher):
        cached = kd.CachedTeacher(folder / teacher.name, teacher, dtype="float32")
        cached.build(samples, verbose=0)
        terms = method(teacher) if callable(method) else method
        return {**terms, "teacher": cached, "student_inputs": "image"}

    return made


def net(data, seed, shape):
    keras.utils.set_random_seed(seed)
    return kd.models.resnet(data.input_shape, data.classes, **shape)


def fit(model, samples, epochs, seed, callbacks=(), eager=False):
    cached = isinstance(getattr(model, "teacher", None), kd.CachedTeacher)
    ids = cached or getattr(model, "sample_ids", None) is not None
    train = kd.data.batches(
        samples, BATCH, shuffle=True, seed=seed, sample_ids=ids, drop_remainder=True
    )
    train = model.teacher.join(train) if cached else train
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    labels = getattr(model, "label_source", 1.0) > 0
    model.compile(
        keras.optimizers.Adam(schedule), loss if labels else None, run_eagerly=eager
    )
    model.fit(train, epochs=epochs, verbose=0, callbacks=list(callbacks))


def accuracy(model, samples):
    return 100 - 100 * kd.analysis.wrong(model, samples).mean()


def run(runs, data, teacher_samples, nets, methods, seeds, eager):
    epochs = runs.settings["epochs"]

    def teacher(seed):
        file = runs.file.parent / f"teacher_{seed}.keras"
        if not file.exists():
            made = net(data, seed, {**nets["teacher"], "name": f"teacher_{seed}"})
            fit(made, teacher_samples, epochs["teacher"], seed, eager=eager)
            made.save(file)
        return keras.saving.load_model(file)

    return kd.analysis.compare(
        methods,
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
    for row, method in enumerate(reversed(list(methods))):
        values = [result["figure"] for result in runs[method][:seeds]]
        axes.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.4)
        axes.plot(np.mean(values), row, "|", color="black", markersize=12)
    axes.set_ylim(-0.7, len(methods) - 0.3)
    axes.set_yticks(range(len(methods)), list(reversed(list(methods))))
    axes.set_xlabel("accuracy % (points: seeds, bar: mean)")
    drawing.savefig(file, dpi=120)
    print(f"\nPlot: {file}")


def load(args):
    """Return the student's data set, and the teacher's samples, which include it."""
    data = kd.data.load(args.dataset)
    if not args.test:
        train, held_out = data.train.split(0.2)
        data = dataclasses.replace(data, train=train, test=held_out)
    teacher_samples = data.train.few(args.teacher_size or len(data.train))
    few = teacher_samples[: args.train_size or TRAIN_SIZE.get(args.dataset)]
    if args.smoke:
        data = dataclasses.replace(data, test=data.test[:256])
    train = kd.data.Samples(few.images, few.labels)
    return dataclasses.replace(data, train=train), teacher_samples


def arguments(out):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--methods", help="comma-separated names; default: all")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--teacher-size", type=int, help="default: all")
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--teacher-epochs", type=int, default=EPOCHS["teacher"])
    parser.add_argument("--width", type=int, default=16, help="filters of the student")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cached", action="store_true", help="read logits from disk")
    parser.add_argument(
        "--test", action="store_true", help="evaluate on the test split"
    )
    parser.add_argument("--suggested", action="store_true", help="measure weights")
    parser.add_argument("--share", type=float, help="of the labels' pull, for them")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=out)
    args = parser.parse_args()
    if args.share and not args.suggested:
        parser.error("--share is of measured weights: pass --suggested too.")
    return args


def selected(methods, names):
    if unknown := set(names) - set(methods):
        raise SystemExit(f"No method {sorted(unknown)}; one of {', '.join(methods)}.")
    return {name: methods[name] for name in dict.fromkeys(["alone", *names])}


def main(out="runs/compare", paper=None, title="paper"):
    """Compare all methods, those of the command line, or those of a paper's table."""
    args = arguments(out)
    nets = {**NETS, "student": {**NETS["student"], "width": args.width}}
    epochs = {"teacher": args.teacher_epochs, "student": args.epochs}
    if args.smoke:
        args.train_size = args.teacher_size = 2 * BATCH + 32
        args.seeds, args.out = 1, args.out / "smoke"
        nets, epochs = SMOKE_NETS, dict.fromkeys(EPOCHS, 1)
    data, teacher_samples = load(args)
    methods = every_method(data, epochs["student"])
    for name in responses(data) if args.cached else ():
        methods[name] = from_cache(methods[name], data.train, args.out / "caches")
    if args.suggested:
        methods = {name: suggested(x, args.share) for name, x in methods.items()}
    # A paper's table may have super-classes, which this data set may lack.
    skipped = {"teacher", "KD-rel"} - set(methods)
    names = [name for name in paper or methods if name not in skipped]
    names = args.methods.split(",") if args.methods else names
    methods = selected(methods, names)
    if args.smoke and not args.methods:
        # Those of a paper begin with what others are compared with.
        some = slice(3) if paper else slice(None, None, 6)
        methods = dict(list(methods.items())[some])
    args.out.mkdir(parents=True, exist_ok=True)
    sizes = {"teacher": len(teacher_samples), "student": len(data.train)}
    settings = {"dataset": args.dataset, "samples": sizes, "epochs": epochs}
    settings["judged on"] = "test" if args.test else "held out"
    settings["weights"] = "suggested" if args.suggested else "recommended"
    if args.share:
        settings["share"] = args.share
    settings["nets"] = nets
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    rows = run(runs, data, teacher_samples, nets, methods, args.seeds, args.smoke)
    for row in rows if paper else ():
        row[title] = paper.get(row["method"])
    print(kd.analysis.table(rows))
    plot(runs, methods, args.seeds, args.out / "accuracies.png")
    print(f"{args.seeds} seed(s), last epoch. {runs.settings}")


if __name__ == "__main__":
    main()
