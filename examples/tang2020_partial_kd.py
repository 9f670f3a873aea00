"""Tang et al. 2020: parts of a teacher's prediction, on classes as alike as one asks.

    python examples/tang2020_partial_kd.py
    python examples/tang2020_partial_kd.py --part tuning
    python examples/tang2020_partial_kd.py --part language

On made-up classes of three similarities a student learns from labels, smoothed labels,
the teacher, and what parts of its prediction are left; then from the top k for several
k, and in the two cases where distillation fails: a teacher trained on smoothed labels,
and one too large. `--part language` is of language models of characters. The stand-in
protocol: 100 features, 20 classes and 20,000 points in place of 500, 50 and 500,000;
tiny_shakespeare in place of Penn Treebank. Each method has the temperature and weight
that `--part tuning` finds best, on data of other seeds; the language models were not
tuned. CIFAR's stand-in is `tang2020_targets.py`. Finished cells are kept in `--out`.
"""

import argparse
import math
import pathlib

import keras
from keras import layers

import keras_distill as kd

SIMILARITIES, EPOCHS, BATCH = (0.0, 0.5, 0.9), 15, 256
# Temperature and weight, of those that `--part tuning` tries.
CHOSEN = {
    "LS": (1.0, 0.1),
    "KD": (3.0, 0.7),
    "KD-pt": (3.0, 0.7),
    "KD-sim": (3.0, 0.7),
    "KD-rel": (3.0, 0.7),
    "KD-pt+sim": (3.0, 0.7),
    "KD-topk": (3.0, 0.7),
}
TRIED = {"temperatures": (1.0, 3.0, 10.0), "weights": (0.3, 0.7, 0.9)}
TUNING_SEED = 100
SIZES = {"features": 100, "classes": 20, "super_classes": 5}
COUNTS = {"train": 20_000, "validation": 5_000}
UNITS = {"student": 16, "teacher": 128, "large": 512}
# Accuracy in % at three similarities; at the last one pt falls behind sim.
PAPER = {
    "teacher": (54.82, 60.60, 61.53),
    "student": (38.45, 42.81, 47.10),
    "KD": (55.97, 56.95, 57.70),
    "KD-pt": (57.05, 56.99, 56.25),
    "KD-sim": (51.90, 53.69, 57.20),
}
# Perplexity on Penn Treebank's test text.
PAPER_LANGUAGE = {"teacher": 58.58, "student": 61.55, "KD": 61.33, "KD-topk": 60.85}
LANGUAGE = {"teacher": 192, "student": 48, "length": 64, "characters": 300_000}


def net(data, units, name):
    """Two tanh layers of one width, residual, logits of unit weights and features."""
    x = inputs = keras.Input((data.features,))
    for place in (1, 2):
        h = layers.BatchNormalization()(layers.Dense(units, use_bias=False)(x))
        h = layers.Activation("tanh")(h)
        x = layers.Add(name=f"stack{place}")([x, h]) if place > 1 else h
    x = layers.Rescaling(16.0)(layers.UnitNormalization()(x))
    unit = keras.constraints.UnitNorm(axis=0)
    logits = layers.Dense(
        data.classes, use_bias=False, kernel_constraint=unit, name="logits"
    )
    return keras.Model(inputs, logits(x), name=name)


def targets(data, teacher):
    """Give, by method, what the teacher's prediction is turned into."""
    vectors = keras.ops.convert_to_numpy(teacher.get_layer("logits").kernel).T
    true = kd.targets.TrueClass()
    similar = kd.targets.ClassSimilarity(vectors)
    of_class = {k: place for place, group in enumerate(data.groups) for k in group}
    return {
        "LS": kd.targets.Uniform(),
        "KD": None,
        "KD-pt": true,
        "KD-sim": similar,
        "KD-rel": kd.targets.SuperClasses([of_class[k] for k in sorted(of_class)]),
        "KD-pt+sim": kd.targets.Mixed(true, similar),
        "KD-topk": kd.targets.TopK(5),
    }


def fit(model, train, epochs, loss):
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(train, epochs=epochs, verbose=0)


def from_labels(data, units, seed, settings, smoothing=0.0):
    keras.utils.set_random_seed(seed)
    model = net(data, units, f"net{units}")
    train = data.batches("train", settings["train"], BATCH)
    if smoothing:
        # Beside the labels a teacher that knows nothing.
        uniform, still = kd.targets.Uniform(), keras.models.clone_model(model)
        fit_distilled(
            model, still, uniform, train, settings["epochs"], (1.0, smoothing)
        )
    else:
        fit(model, train, settings["epochs"], cross_entropy())
    return model


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fit_distilled(student, teacher, target, train, epochs, how):
    temperature, weight = how
    loss = kd.losses.SoftTarget(temperature, target=target)
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(loss, weight=weight)],
        label_weight=1.0 - weight,
    )
    fit(distiller, train, epochs, cross_entropy())


def distilled(data, teacher, target, seed, settings, how):
    keras.utils.set_random_seed(1000 + seed)
    student = net(data, UNITS["student"], "student")
    train = data.batches("train", settings["train"], BATCH)
    fit_distilled(student, teacher, target, train, settings["epochs"], how)
    return student


class Cells:
    """Accuracies on points that no model has seen, each model's kept when it is there."""

    def __init__(self, runs, similarity, seed):
        self.runs, self.similarity, self.seed = runs, similarity, seed
        self.settings = runs.settings
        self.data = kd.data.RelatedClasses(similarity, 2, **SIZES, seed=seed)
        self.held_out = self.data.samples("validation", self.settings["validation"])

    def keep(self, name, make):
        def right():
            return 100 - 100 * kd.analysis.wrong(make(), self.held_out).mean()

        name = f"{name}, {self.similarity}"
        found = self.runs.once(name, self.seed, right)
        print(f"{name}, seed {self.seed}: {found:.2f}", flush=True)

    def keep_distilled(self, name, teacher, target, how):
        self.keep(
            name,
            lambda: distilled(
                self.data, teacher, target, self.seed, self.settings, how
            ),
        )

    def teacher(self, units=UNITS["teacher"], smoothing=0.0):
        return from_labels(self.data, units, self.seed, self.settings, smoothing)


def synthetic(runs, similarity, seed):
    """Run each method once on classes of one similarity."""
    cells = Cells(runs, similarity, seed)
    plain = cells.teacher()
    cells.keep("teacher", lambda: plain)
    alone = lambda: from_labels(  # noqa: E731
        cells.data, UNITS["student"], 1000 + seed, runs.settings
    )
    cells.keep("student", alone)
    for name, target in targets(cells.data, plain).items():
        cells.keep_distilled(name, plain, target, CHOSEN[name])
    if similarity != SIMILARITIES[1]:
        return
    for k in runs.settings["tops"]:
        top = kd.targets.TopK(k)
        cells.keep_distilled(f"top {k}", plain, top, CHOSEN["KD-topk"])
    for kind, units, smoothing in (
        ("smoothed", UNITS["teacher"], 0.1),
        ("large", UNITS["large"], 0.0),
    ):
        other = cells.teacher(units, smoothing)
        cells.keep(f"{kind} teacher", lambda m=other: m)
        cells.keep_distilled(f"KD from {kind}", other, None, CHOSEN["KD"])


def tuning(runs, seed):
    """Try temperatures and weights of each method on classes of one similarity."""
    cells = Cells(runs, SIMILARITIES[1], seed)
    plain = cells.teacher()
    for name, target in targets(cells.data, plain).items():
        smooths = name == "LS"
        for temperature in (1.0,) if smooths else runs.settings["temperatures"]:
            for weight in runs.settings["weights"]:
                how = temperature, round(1.0 - weight, 1) if smooths else weight
                cells.keep_distilled(
                    f"{name} T {how[0]:g} weight {how[1]:g}", plain, target, how
                )


def language_model(alphabet, units, name):
    inputs = keras.Input((LANGUAGE["length"],), dtype="int32")
    x = layers.Embedding(alphabet, 32)(inputs)
    x = layers.LSTM(units, return_sequences=True, name="lstm")(x)
    return keras.Model(inputs, layers.Dense(alphabet, name="logits")(x), name=name)


def language(runs, seed):
    """Train language models of characters; keep bits a character of the test text."""
    text, settings = kd.data.load_characters(), runs.settings
    x, y = text.windows("train", LANGUAGE["length"])
    count = settings["characters"] // LANGUAGE["length"]
    x, y = x[:count], y[:count]
    test = text.windows("test", LANGUAGE["length"])
    alphabet = len(text.alphabet)

    def fitted(model):
        steps = settings["language_epochs"] * -(-len(x) // 64)
        rate = keras.optimizers.schedules.CosineDecay(4e-3, steps)
        model.compile(keras.optimizers.Adam(rate), cross_entropy())
        model.fit(x, y, batch_size=64, epochs=settings["language_epochs"], verbose=0)

    def bits(model):
        model.compile("sgd", cross_entropy())
        return model.evaluate(*test, batch_size=64, verbose=0) / math.log(2)

    keras.utils.set_random_seed(seed)
    teacher = language_model(alphabet, LANGUAGE["teacher"], "teacher")
    fitted(teacher)
    runs.once("language, teacher", seed, lambda: bits(teacher))
    for name, target in {
        "student": None,
        "KD": None,
        "KD-topk": kd.targets.TopK(5),
    }.items():

        def make(name=name, target=target):
            keras.utils.set_random_seed(1000 + seed)
            student = language_model(alphabet, LANGUAGE["student"], "student")
            if name == "student":
                fitted(student)
            else:
                soft = kd.Term(kd.losses.SoftTarget(1.5, target=target), weight=0.5)
                fitted(kd.Distiller(student, teacher, terms=[soft], label_weight=0.5))
            return bits(student)

        found = runs.once(f"language, {name}", seed, make)
        print(f"language, {name}, seed {seed}: {found:.3f} bits", flush=True)


def report_synthetic(runs):
    rows = []
    names = dict.fromkeys(name.split(",")[0] for name in runs.names)
    for name in names:
        row = {"method": name}
        for place, similarity in enumerate(SIMILARITIES):
            key, paper = f"{name}, {similarity}", PAPER.get(name)
            row[f"paper, {place + 1}"] = paper and paper[place]
            row[f"similarity {similarity}"] = (
                runs.shown(key) if key in runs.names else ""
            )
        rows.append(row)
    print(kd.analysis.table(rows))
    print(
        "\nValidation accuracy in %, last epoch, mean ± deviation; the paper's three "
        f"similarities are not stated. Stand-in: {runs.settings}."
    )


def report_tuning(runs):
    rows = [{"method": name, "accuracy": runs.shown(name)} for name in runs.names]
    print(kd.analysis.table(rows))
    print(
        f"\nAccuracy in %, mean ± deviation, on data of other seeds. {runs.settings}."
    )


def report_language(runs):
    rows = [
        {
            "model": name,
            "paper, test perplexity": paper,
            "ours, bits a character": runs.shown(f"language, {name}", 3),
        }
        for name, paper in PAPER_LANGUAGE.items()
    ]
    print(kd.analysis.table(rows))
    print(f"\nTest text, last epoch, mean ± deviation. Stand-in: {runs.settings}.")


def plot(file):
    """Draw points of two features, in the colours of their classes."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("\nNo plot: matplotlib is not installed (pip install matplotlib).")
        return
    figure = Figure(figsize=(9, 6), layout="constrained")
    grid = figure.subplots(2, 3)
    for axes, difficulty in zip(grid, (0, 4), strict=True):
        for axis, similarity in zip(axes, SIMILARITIES, strict=True):
            data = kd.data.RelatedClasses(
                similarity, difficulty, features=3, classes=4, super_classes=2
            )
            points = data.samples("train", 2000)
            axis.scatter(*points.images.T[:2], c=points.labels, s=3, cmap="tab10")
            axis.set_title(f"similarity {similarity}, difficulty {difficulty}")
    figure.savefig(file)
    print(f"\nPlot: {file}")


PARTS = ("synthetic", "tuning", "language")


def settings_of(part, smoke):
    if part == "language":
        settings = {**LANGUAGE, "language_epochs": 10}
        few = {"characters": 4096, "language_epochs": 1}
    else:
        settings = {"epochs": EPOCHS, **COUNTS, "units": UNITS, "sizes": SIZES}
        settings |= TRIED if part == "tuning" else {"tops": (2, 10), "chosen": CHOSEN}
        few = {"epochs": 1, "train": 512, "validation": 256}
        few |= {"tops": (2,)} if part == "synthetic" else {"temperatures": (1.0,)}
    return {**settings, **few} if smoke else settings


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, default="synthetic")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/tang2020_partial_kd")
    args = parser.parse_args()
    similarities = SIMILARITIES
    if args.smoke:
        args.seeds, args.out, similarities = 1, args.out / "smoke", SIMILARITIES[1:2]
    args.out.mkdir(parents=True, exist_ok=True)
    runs = kd.analysis.Runs(
        args.out / f"{args.part}.json", settings_of(args.part, args.smoke)
    )
    for seed in range(args.seeds):
        if args.part == "language":
            language(runs, seed)
        elif args.part == "tuning":
            tuning(runs, TUNING_SEED + seed)
        else:
            for similarity in similarities:
                synthetic(runs, similarity, seed)
    reports = report_synthetic, report_tuning, report_language
    dict(zip(PARTS, reports, strict=True))[args.part](runs)
    if args.part == "synthetic":
        plot(args.out / "classes.png")


if __name__ == "__main__":
    main()
