"""Methods side by side: one teacher, one student, one data set, several seeds.

    python examples/compare.py
    python examples/compare.py --dataset cifar10_jpeg --train-size 10000
    python examples/compare.py --methods KD,AT,KD+AT --seeds 5

Every method trains the same student from the same start for the same epochs, on
`--train-size` of the teacher's samples (of digits 400, of other sets all), with the
weights that its docstring recommends. Soft targets share the step with the labels, 0.9
to 0.1; other losses stand beside labels that count fully; FitNet, AB and FSP train the
layers first and then labels alone, each stage for all epochs. Accuracy is that of the
last epoch on a fifth of the training data that is held out from student and teacher,
so that nothing is chosen on the test split; `--test` shows the test split instead. With
`--cached` methods that ask for the teacher's logits alone read them from disk.
Finished cells are kept in `--out` and not repeated, so the list of methods and the
seeds can grow.
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
MIRROR = ("label_gradient", "mirrored_label_gradient")
NETS = {"teacher": {"depth": 20, "width": 16}, "student": {"depth": 8, "width": 16}}
SMOKE_NETS = {name: {"depth": 8, "width": 4} for name in NETS}
TRAIN_SIZE, BATCH = {"digits": 400}, 64
EPOCHS = {"teacher": 40, "student": 60}
# Classes that are often taken for each other; CIFAR-10's are vehicles and animals.
SUPER_CLASSES = {
    "digits": [0, 1, 2, 3, 4, 3, 0, 1, 3, 4],
    "cifar10": [0, 0, 1, 1, 1, 1, 1, 1, 0, 0],
}


def on(taps, loss):
    """Give a term for each tap, or tuple of taps, the same on both sides."""
    names = [tap[-1] if isinstance(tap, tuple) else tap for tap in taps]
    return [
        kd.Term(loss, tap, tap, name=f"{loss.name}_{getattr(name, 'path', name)}")
        for tap, name in zip(taps, names, strict=True)
    ]


def beside_labels(*terms, **arguments):
    return {"terms": [t for part in terms for t in part], **arguments}


def before_labels(terms):
    """Give two stages: the layers without labels, then labels alone."""
    return [{"terms": terms, "label_weight": 0.0}, {}]


def soft(target=None, temperature=4.0, weight=0.9):
    term = kd.Term(losses.SoftTarget(temperature, target=target), weight=weight)
    return {"terms": [term], "label_weight": 1 - weight}


def similarity(teacher):
    kernel = keras.ops.convert_to_numpy(teacher.get_layer("logits").kernel)
    return targets.ClassSimilarity(kernel.T)


def logits(loss, weight=None):
    return beside_labels([kd.Term(loss, weight=weight)])


def responses(data):
    groups = SUPER_CLASSES.get(data.name.removesuffix("_jpeg"))
    pt = targets.TrueClass()
    known = {"KD-rel": soft(targets.SuperClasses(groups), 1.0, 0.5)} if groups else {}
    return {
        "label smoothing": soft(targets.Uniform(), 1.0, 0.1),
        "KD": soft(),
        "KD-pt": soft(pt),
        "KD-sim": lambda teacher: soft(similarity(teacher)),
        **known,
        "KD-pt+sim": lambda teacher: soft(targets.Mixed(pt, similarity(teacher), 0.3)),
        "KD-topk": soft(targets.TopK(3)),
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
        "DIST": logits(losses.PredictionCorrelation(4.0)),
        "ranking": logits(losses.Ranking(3)),
    }


def features(data, epochs):
    def factors(teacher):
        paraphraser = kd.adapters.Paraphraser(0.5)
        images = data.train.images
        paraphraser.train_on(teacher, "stack3", images, epochs=epochs, verbose=0)
        return beside_labels(on(["stack3"], losses.FactorTransfer(paraphraser)))

    return {
        "FitNet": before_labels(on(["stack2"], losses.Hint())),
        "AT": beside_labels(on(STAGES, losses.AttentionMap())),
        "F-ActT": beside_labels(on(STAGES, losses.FullActivation())),
        "gradient AT": beside_labels(
            on(["label_gradient"], losses.GradientAttention())
        ),
        "flip symmetry": beside_labels(
            [kd.Term(losses.FlipSymmetry(), student=MIRROR)]
        ),
        "Jacobian": beside_labels(on(["class_gradient"], losses.Jacobian())),
        "FSP": before_labels(on(FLOWS, losses.FlowMatrix())),
        "KDSVD": beside_labels(on(FLOWS, losses.SingularFlow())),
        "NST": beside_labels(on(["stack3"], losses.NeuronSelectivity())),
        "AB": before_labels(on(BEFORE, losses.ActivationBoundary())),
        "OFD": beside_labels(on(BEFORE, losses.MarginActivation())),
        "VID": beside_labels(on(STAGES, losses.VariationalInformation())),
        "FT": factors,
        "ReviewKD": beside_labels(on([STAGES], losses.Review(3))),
    }


def relations(data):
    pool = ["pool"]
    bank = losses.Contrastive(len(data.train), negatives=1024)
    inputs = {"student_inputs": "image", "teacher_inputs": "image"}
    distances, angles = (
        on(pool, loss) for loss in (losses.DistanceRelation(), losses.AngleRelation())
    )
    return {
        "RKD-D": beside_labels(distances),
        "RKD-A": beside_labels(angles),
        "RKD-DA": beside_labels(distances, angles),
        "SP": beside_labels(on(["stack3"], losses.SimilarityMatrix())),
        "CC": beside_labels(on(pool, losses.CorrelationCongruence())),
        "PKT": beside_labels(on(pool, losses.ConditionalProbability())),
        "DarkRank": beside_labels(on(pool, losses.SoftRank())),
        "DarkRank hard": beside_labels(on(pool, losses.HardRank(items=10))),
        "triplets": beside_labels(on(pool, losses.ClassTriplet())),
        "verification": beside_labels(on(pool, losses.Verification())),
        "voted triplets": beside_labels(on(pool, losses.VotedTriplet())),
        "CRD": beside_labels(on(pool, bank), sample_ids="sample_id", **inputs),
        "KD+RKD-DA": beside_labels(
            soft()["terms"], distances, angles, label_weight=0.1
        ),
        "KD+AT": beside_labels(
            soft()["terms"], on(STAGES, losses.AttentionMap()), label_weight=0.1
        ),
    }


def every_method(data, epochs):
    """Give all methods by name, each what `kd.analysis.compare` takes."""
    return {
        "alone": None,
        **responses(data),
        **features(data, epochs),
        **relations(data),
    }


def from_cache(method, samples, folder):
    """Let a method that asks for logits alone read them, computed once, from disk."""

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


def run(runs, data, of_teacher, nets, methods, seeds, eager):
    epochs = runs.settings["epochs"]

    def teacher(seed):
        file = runs.file.parent / f"teacher_{seed}.keras"
        if not file.exists():
            made = net(data, seed, {**nets["teacher"], "name": f"teacher_{seed}"})
            fit(made, of_teacher, epochs["teacher"], seed, eager=eager)
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
    for place, method in enumerate(reversed(list(methods))):
        found = [cell["figure"] for cell in runs[method][:seeds]]
        axes.plot(found, [place] * len(found), "o", color="tab:blue", alpha=0.4)
        axes.plot(np.mean(found), place, "|", color="black", markersize=12)
    axes.set_ylim(-0.7, len(methods) - 0.3)
    axes.set_yticks(range(len(methods)), list(reversed(list(methods))))
    axes.set_xlabel("accuracy %, a point a seed, a bar the mean")
    drawing.savefig(file, dpi=120)
    print(f"\nPlot: {file}")


def load(args):
    """Load the student's data set, and the teacher's samples, which hold its own."""
    data = kd.data.load(args.dataset)
    if not args.test:
        train, held_out = data.train.split(0.2)
        data = dataclasses.replace(data, train=train, test=held_out)
    of_teacher = data.train.few(args.teacher_size or len(data.train))
    few = of_teacher[: args.train_size or TRAIN_SIZE.get(args.dataset)]
    if args.smoke:
        data = dataclasses.replace(data, test=data.test[:256])
    train = kd.data.Samples(few.images, few.labels)
    return dataclasses.replace(data, train=train), of_teacher


def arguments(out):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--methods", help="names, joined by commas; default: all")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--teacher-size", type=int, help="default: all")
    parser.add_argument("--epochs", type=int, default=EPOCHS["student"])
    parser.add_argument("--teacher-epochs", type=int, default=EPOCHS["teacher"])
    parser.add_argument("--width", type=int, default=16, help="filters of the student")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cached", action="store_true", help="logits from disk")
    parser.add_argument("--test", action="store_true", help="judge on the test split")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=out)
    return parser.parse_args()


def chosen(known, names):
    if unknown := set(names) - set(known):
        raise SystemExit(f"No method {sorted(unknown)}; there are {', '.join(known)}.")
    return {name: known[name] for name in dict.fromkeys(["alone", *names])}


def main(out="runs/compare", paper=None, title="paper"):
    """Compare methods: all, those of the command line, or those of a paper's table."""
    args = arguments(out)
    nets = {**NETS, "student": {**NETS["student"], "width": args.width}}
    epochs = {"teacher": args.teacher_epochs, "student": args.epochs}
    if args.smoke:
        args.train_size = args.teacher_size = 2 * BATCH + 32
        args.seeds, args.out = 1, args.out / "smoke"
        nets, epochs = SMOKE_NETS, dict.fromkeys(EPOCHS, 1)
    data, of_teacher = load(args)
    known = every_method(data, epochs["student"])
    for name in responses(data) if args.cached else ():
        known[name] = from_cache(known[name], data.train, args.out / "caches")
    # A paper's table may hold what this data set has not, as super-classes.
    skipped = {"teacher", "KD-rel"} - set(known)
    names = [name for name in paper or known if name not in skipped]
    names = args.methods.split(",") if args.methods else names
    methods = chosen(known, names)
    if args.smoke and paper:
        methods = dict(list(methods.items())[:3])
    args.out.mkdir(parents=True, exist_ok=True)
    sizes = {"teacher": len(of_teacher), "student": len(data.train)}
    settings = {"dataset": args.dataset, "samples": sizes, "epochs": epochs}
    settings["judged on"] = "test" if args.test else "held out"
    settings["nets"] = nets
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    rows = run(runs, data, of_teacher, nets, methods, args.seeds, eager=args.smoke)
    for row in rows if paper else ():
        row[title] = paper.get(row["method"])
    print(kd.analysis.table(rows))
    plot(runs, methods, args.seeds, args.out / "accuracies.png")
    print(f"{args.seeds} seed(s), last epoch. {runs.settings}")


if __name__ == "__main__":
    main()
