"""Tang et al. 2020: partial targets on synthetic classes of known similarity.

    python examples/tang2020_partial_kd.py
    python examples/tang2020_partial_kd.py --part language

On synthetic classes of three similarities, a student learns from labels, smoothed labels,
the teacher, and parts of the teacher's prediction; then from the top k classes for several
k, and in two cases where distillation fails: a teacher trained with label smoothing, and
one that is too large. `--part language` trains character-level language models.
Small-scale stand-in: 100 features, 20 classes and 20,000 points instead of 500, 50 and
500,000; tiny_shakespeare instead of Penn Treebank. Nothing was tuned. For CIFAR see
`tang2020_targets.py`. Finished runs are stored in `--out`.
"""

import argparse
import math
import pathlib

import keras
from keras import layers

import keras_distill as kd

SIMILARITIES, EPOCHS, BATCH, TEMPERATURE, SOFT = (0.0, 0.5, 0.9), 15, 256, 3.0, 0.7
SIZES = {"features": 100, "classes": 20, "super_classes": 5}
COUNTS = {"train": 20_000, "validation": 5_000}
UNITS = {"student": 16, "teacher": 128, "large": 512}
# Accuracy in % at three similarities; at the last one, sim is better than pt.
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
    """Return a residual network of two tanh layers with normalized last layer."""
    x = inputs = keras.Input((data.features,))
    for index in (1, 2):
        h = layers.BatchNormalization()(layers.Dense(units, use_bias=False)(x))
        h = layers.Activation("tanh")(h)
        x = layers.Add(name=f"stack{index}")([x, h]) if index > 1 else h
    x = layers.Rescaling(16.0)(layers.UnitNormalization()(x))
    unit = keras.constraints.UnitNorm(axis=0)
    logits = layers.Dense(
        data.classes, use_bias=False, kernel_constraint=unit, name="logits"
    )
    return keras.Model(inputs, logits(x), name=name)


def targets(data, teacher):
    """Return the target of each method."""
    vectors = keras.ops.convert_to_numpy(teacher.get_layer("logits").kernel).T
    true = kd.targets.TrueClass()
    similar = kd.targets.ClassSimilarity(vectors)
    group_of = {k: index for index, group in enumerate(data.groups) for k in group}
    return {
        "LS": kd.targets.Uniform(),
        "KD": None,
        "KD-pt": true,
        "KD-sim": similar,
        "KD-rel": kd.targets.SuperClasses([group_of[k] for k in sorted(group_of)]),
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
        # Label smoothing: a teacher with a uniform target, whose weights are not used.
        fit_distilled(model, model, kd.targets.Uniform(), train, settings, smoothing)
    else:
        fit(model, train, settings["epochs"], cross_entropy())
    return model


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fit_distilled(student, teacher, target, train, settings, soft_weight=SOFT):
    uniform = isinstance(target, kd.targets.Uniform)
    if student is teacher:
        teacher = keras.models.clone_model(student)
    loss = kd.losses.SoftTarget(1.0 if uniform else TEMPERATURE, target=target)
    terms = [kd.Term(loss, weight=0.1 if uniform else soft_weight)]
    distiller = kd.Distiller(
        student, teacher, terms=terms, label_weight=1.0 - terms[0].weight
    )
    fit(distiller, train, settings["epochs"], cross_entropy())


def distilled(data, teacher, target, seed, settings):
    keras.utils.set_random_seed(1000 + seed)
    student = net(data, UNITS["student"], "student")
    train = data.batches("train", settings["train"], BATCH)
    fit_distilled(student, teacher, target, train, settings)
    return student


def synthetic(runs, similarity, seed):
    """Run each method on classes of one similarity."""
    settings = runs.settings
    data = kd.data.RelatedClasses(similarity, 2, **SIZES, seed=seed)
    held_out = data.samples("validation", settings["validation"])
    accuracy = lambda model: 100 - 100 * kd.analysis.wrong(model, held_out).mean()  # noqa: E731

    def cell(name, make):
        result = runs.once(f"{name}, {similarity}", seed, lambda: accuracy(make()))
        print(f"{name}, {similarity}, seed {seed}: {result:.2f}", flush=True)

    teachers = {}

    def teacher(kind, units, smoothing=0.0):
        if kind not in teachers:
            teachers[kind] = from_labels(data, units, seed, settings, smoothing)
        return teachers[kind]

    plain = teacher("plain", UNITS["teacher"])
    cell("teacher", lambda: plain)
    cell("student", lambda: from_labels(data, UNITS["student"], 1000 + seed, settings))
    for name, target in targets(data, plain).items():
        cell(name, lambda t=target: distilled(data, plain, t, seed, settings))
    if similarity != SIMILARITIES[1]:
        return
    for k in settings["tops"]:
        top = kd.targets.TopK(k)
        cell(f"top {k}", lambda t=top: distilled(data, plain, t, seed, settings))
    for kind, units, smoothing in (
        ("smoothed", UNITS["teacher"], 0.1),
        ("large", UNITS["large"], 0.0),
    ):
        other = teacher(kind, units, smoothing)
        cell(f"{kind} teacher", lambda m=other: m)
        cell(
            f"KD from {kind}", lambda m=other: distilled(data, m, None, seed, settings)
        )


def language_model(alphabet, units, name):
    inputs = keras.Input((LANGUAGE["length"],), dtype="int32")
    x = layers.Embedding(alphabet, 32)(inputs)
    x = layers.LSTM(units, return_sequences=True, name="lstm")(x)
    return keras.Model(inputs, layers.Dense(alphabet, name="logits")(x), name=name)


def language(runs, seed):
    """Train character-level language models; store bits per character on the test text."""
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

        result = runs.once(f"language, {name}", seed, make)
        print(f"language, {name}, seed {seed}: {result:.3f} bits", flush=True)


def report_synthetic(runs):
    rows = []
    names = dict.fromkeys(name.split(",")[0] for name in runs.names)
    for name in names:
        row = {"method": name}
        for index, similarity in enumerate(SIMILARITIES):
            key, paper = f"{name}, {similarity}", PAPER.get(name)
            row[f"paper, {index + 1}"] = paper and paper[index]
            row[f"similarity {similarity}"] = (
                runs.summary(key) if key in runs.names else ""
            )
        rows.append(row)
    print(kd.analysis.table(rows))
    print(
        "\nValidation accuracy in %, last epoch, mean ± std; the paper does not "
        f"state its similarities. Settings: {runs.settings}."
    )


def report_language(runs):
    rows = [
        {
            "model": name,
            "paper, test perplexity": paper,
            "ours, bits per character": runs.summary(f"language, {name}", 3),
        }
        for name, paper in PAPER_LANGUAGE.items()
    ]
    print(kd.analysis.table(rows))
    print(f"\nTest text, last epoch, mean ± std. Settings: {runs.settings}.")


def plot(file):
    """Plot two features of the points, colored by class."""
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", choices=["synthetic", "language"], default="synthetic"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/tang2020_partial_kd")
    args = parser.parse_args()
    settings = {"epochs": EPOCHS, **COUNTS, "tops": (2, 10), "units": UNITS}
    settings |= {"temperature": TEMPERATURE, "sizes": SIZES}
    if args.part == "language":
        settings = {**LANGUAGE, "language_epochs": 10}
    similarities = SIMILARITIES
    if args.smoke:
        args.seeds, args.out, similarities = 1, args.out / "smoke", SIMILARITIES[1:2]
        settings |= {"epochs": 1, "train": 512, "validation": 256, "tops": (2,)}
        settings |= {"characters": 4096, "language_epochs": 1}
    args.out.mkdir(parents=True, exist_ok=True)
    runs = kd.analysis.Runs(args.out / f"{args.part}.json", settings)
    if args.part == "language":
        for seed in range(args.seeds):
            language(runs, seed)
        report_language(runs)
        return
    for seed in range(args.seeds):
        for similarity in similarities:
            synthetic(runs, similarity, seed)
    report_synthetic(runs)
    plot(args.out / "classes.png")


if __name__ == "__main__":
    main()
