"""Analyze a teacher and its students: every analysis on one data set.

    python examples/understanding.py

A teacher and three students of the same size, trained on labels, on smoothed labels and
from the teacher. The table measures the claims of Tang et al. 2020: classes of one group
correlate at a high temperature; distillation weights samples by the teacher's confidence,
most strongly early in training; it orders the classes in the student's last layer as the
teacher does; and it improves fidelity and calibration. Nothing was tuned. Results are
stored in `--out`, with all figures of seed 0 and a report, which opens in a browser.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

SIZE, EPOCHS, BATCH, TEMPERATURE, SOFT = 600, 60, 32, 4.0, 0.9
TEMPERATURES = (1.0, 4.0, 20.0)
TITLES = {
    "blocks, T = 1": "blocks of the class correlation, T = 1",
    "blocks, T = 4": "the same, T = 4",
    "blocks, T = 20": "the same, T = 20",
    "blocks, weights": "blocks of the cosines of the last layer's weights",
    "early correlation": "correlation of gradient ratio and confidence, first epoch",
    "late correlation": "the same, last epoch",
    "early slope": "slope of gradient ratio by confidence, first epoch",
    "order, labels": "rank correlation of wrong classes with the teacher, from labels",
    "order, smoothed": "the same, from smoothed labels",
    "order, distilled": "the same, distilled",
    "agrees, labels": "agreement with the teacher %, from labels",
    "agrees, distilled": "the same, distilled",
    "calibration, labels": "calibration error, from labels",
    "calibration, smoothed": "the same, from smoothed labels",
    "calibration, distilled": "the same, distilled",
}


def net(data, filters, name):
    return kd.models.conv_net(
        data.input_shape, data.classes, filters=filters, name=name
    )


def fit(model, samples, epochs):
    steps = EPOCHS * -(-len(samples) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    distills = isinstance(model, kd.Distiller)
    return model.fit(
        samples.images,
        samples.labels,
        batch_size=BATCH,
        epochs=epochs,
        callbacks=[kd.callbacks.Pulls()] if distills else [],
        verbose=0,
    )


def student(data, seed):
    keras.utils.set_random_seed(1000 + seed)
    return net(data, (8, 16), "student")


def trained(data, few, seed, epochs):
    """Return teacher, students and histories by name, and a student after one epoch."""
    keras.utils.set_random_seed(seed)
    teacher = net(data, (32, 64), "teacher")
    histories = {"teacher": fit(teacher, few, epochs)}
    soft = kd.losses.SoftTarget(TEMPERATURE)
    smooth = kd.losses.SoftTarget(1.0, target=kd.targets.Uniform())
    students = {"labels": student(data, seed)}
    histories["labels"] = fit(students["labels"], few, epochs)
    for name, loss, weight in (("smoothed", smooth, 0.1), ("distilled", soft, SOFT)):
        students[name] = student(data, seed)
        term = kd.Term(loss, weight=weight)
        distiller = kd.Distiller(
            students[name], teacher, terms=[term], label_weight=1.0 - weight
        )
        histories[name] = fit(distiller, few, epochs)
    early = student(data, seed)
    term = kd.Term(soft, weight=SOFT)
    fit(kd.Distiller(early, teacher, terms=[term], label_weight=1.0 - SOFT), few, 1)
    return teacher, students, histories, early


def numbers(data, few, seed, settings, folder):
    """Return all results of one seed; plot the figures of seed 0."""
    teacher, students, histories, early = trained(data, few, seed, settings["epochs"])
    classes = kd.analysis.class_correlation(teacher, data.test, TEMPERATURES)
    weights = kd.analysis.weight_similarity(teacher, groups=classes[0].groups)
    found = {
        f"blocks, T = {T:g}": one.blocks
        for T, one in zip(TEMPERATURES, classes, strict=True)
    }
    found["blocks, weights"] = weights.blocks
    factors = {
        name: kd.analysis.gradient_rescaling(
            model, teacher, few, temperature=TEMPERATURE, soft_weight=SOFT
        )
        for name, model in (("early", early), ("late", students["distilled"]))
    }
    found |= {f"{name} correlation": one.correlation for name, one in factors.items()}
    found["early slope"] = factors["early"].slope
    layers, calibrated = {}, {"teacher": kd.analysis.calibration(teacher, data.test)}
    for name, model in students.items():
        layers[name] = kd.analysis.last_layer_geometry(model, teacher, data.test)
        calibrated[name] = kd.analysis.calibration(model, data.test)
        found[f"order, {name}"] = layers[name].agreement.mean()
        found[f"calibration, {name}"] = calibrated[name].error
        fidelity = kd.analysis.agreement(model, teacher=teacher, samples=data.test)
        found[f"agrees, {name}"] = 100 * fidelity.top
    if seed == 0:
        plots = [*classes, weights], factors, layers, calibrated
        plot(data, teacher, students, histories, *plots, folder)
    return found


def plot(
    data, teacher, students, histories, classes, factors, layers, calibrated, folder
):
    analysis = kd.analysis
    models = {"teacher": teacher, **students}
    try:
        images = data.test.images[:8]
        maps = {
            name: analysis.attention_maps(model, images, "stack1")
            for name, model in models.items()
        }
        accuracies = analysis.by_class(models, data.test)
        figures = {
            "class_correlation": analysis.plot_class_correlation(classes),
            "gradient_rescaling": analysis.plot_gradient_rescaling(factors["early"]),
            "last_layer": analysis.plot_last_layer(layers),
            "attention": analysis.plot_attention_maps(images, maps),
            "reliability": analysis.plot_reliability(calibrated),
            "by_class": analysis.plot_by_class(accuracies, against="labels"),
        }
        analysis.report(
            students,
            teacher,
            data.test,
            file=folder / "report.html",
            histories=histories,
            tap="stack1",
        )
    except ImportError:
        print("\nNo figures: matplotlib is not installed (pip install matplotlib).")
        return
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=80)
    print(f"Figures and report: {folder}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/understanding")
    args = parser.parse_args()
    settings = {"dataset": args.dataset, "train_size": SIZE, "epochs": EPOCHS}
    if args.smoke:
        args.seeds, args.out = 1, args.out / "smoke"
        settings |= {"train_size": 96, "epochs": 1}
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    runs = kd.analysis.Runs(args.out / "numbers.json", settings)
    for seed in range(args.seeds):
        few = data.train.few(settings["train_size"], seed)
        runs.once(
            "numbers",
            seed,
            lambda s=seed, f=few: numbers(data, f, s, settings, args.out),
        )
    rows = [
        {"": title, "result": runs.summary("numbers", 3, of=lambda c, n=name: c[n])}
        for name, title in TITLES.items()
    ]
    print(kd.analysis.table(rows))
    print(f"\nMean ± std; seeds: {args.seeds}. {settings}.")


if __name__ == "__main__":
    main()
