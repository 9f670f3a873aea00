"""Furlanello et al. 2018: born-again networks and ensembles of their generations.

    python examples/furlanello2018_born_again.py

Each generation has the teacher's architecture and new weights, and learns from the
previous one: from soft targets alone (BAN), with labels (BAN+L), from labels weighted by
the teacher's confidence (CWTM), and from predictions with permuted wrong classes (DKPP).
The ensemble of all generations is evaluated too. Small-scale stand-in: digits or
CIFAR-10's JPEG copy instead of CIFAR-10 and 100, small residual networks instead of wide
ones and DenseNets, few training samples. Epochs and temperature were chosen on held-out
training images. Finished chains are stored in `--out` and not repeated, with a plot of
the error by generation.
"""

import argparse
import pathlib

import keras

import keras_distill as kd

GENERATIONS, EPOCHS, BATCH, SIZE, DEPTH, TEMPERATURE = 2, 60, 64, 400, 8, 4.0
# The paper's errors in %: teacher, generation 1, a later generation, ensemble. The
# CIFAR-10 row and both teachers are from memory, not checked.
PAPER = {
    "paper, CIFAR-10, DenseNet-112-33": ("3.84", "3.61 (BAN)", "", ""),
    "paper, CIFAR-100, DenseNet-80-80": (
        "17.16",
        "16.5 (BAN+L)",
        "15.5 (BAN-3, generation 3)",
        "15.14 (of three)",
    ),
}


def schemes():
    soft = kd.losses.SoftTarget(TEMPERATURE)
    permuted = kd.losses.SoftTarget(TEMPERATURE, target=kd.targets.Permuted())
    return {
        "BAN": ([kd.Term(soft, weight=1.0)], 0.0),
        "BAN+L": ([kd.Term(soft, weight=1.0)], 1.0),
        "CWTM": ([kd.Term(kd.losses.ConfidenceWeightedLabel(), weight=1.0)], 0.0),
        "DKPP": ([kd.Term(permuted, weight=1.0)], 0.0),
    }


def make(data):
    def generation(index):
        name = f"generation{index}"
        return kd.models.resnet(
            data.input_shape, data.classes, depth=DEPTH, width=16, name=name
        )

    return generation


def compiled(steps):
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"optimizer": keras.optimizers.Adam(rate), "loss": loss}


def errors(models, data):
    """Return the error in % of each generation, and of the ensemble up to each."""
    alone = [100 * kd.analysis.wrong(model, data.test).mean() for model in models]
    together = [alone[0]]
    for count in range(2, len(models) + 1):
        ensemble = kd.Ensemble(models[:count])
        together.append(100 * kd.analysis.wrong(ensemble, data.test).mean())
    return {"alone": alone, "ensemble": together}


def chain(data, few, name, seed, settings, folder):
    """Train the teacher and its generations; return their errors."""
    terms, label_weight = schemes()[name]
    train = kd.data.batches(few, BATCH, shuffle=True, seed=seed)
    generations = kd.fit_generations(
        make(data),
        settings["generations"] + 1,
        train,
        compiled=compiled(settings["epochs"] * len(train)),
        terms=terms,
        label_weight=label_weight,
        epochs=settings["epochs"],
        seed=100 * seed,
        backup=folder / f"{name}_{seed}",
        verbose=0,
    )
    return errors([generation.model for generation in generations], data)


def report(runs, names):
    count = runs.settings["generations"]
    titles = ["teacher", *(f"generation {i + 1}" for i in range(count))]
    rows = [
        {"": name, "teacher": a, "generation 1": b, "generation 2": c, "ensemble": d}
        for name, (a, b, c, d) in PAPER.items()
    ]
    for name in names:
        cells = {
            title: runs.summary(name, of=lambda figure, i=i: figure["alone"][i])
            for i, title in enumerate(titles)
        }
        together = runs.summary(name, of=lambda figure: figure["ensemble"][-1])
        rows.append({"": f"ours, {name}", **cells, "ensemble": together})
    columns = ["", *titles, "ensemble"]
    print(kd.analysis.table([{c: row.get(c, "") for c in columns} for row in rows]))
    print(
        f"\nTest error in %, last epoch, mean ± std; the ensemble is of all models in "
        f"the row; seeds: {len(runs[names[0]])}. Settings: {runs.settings}."
    )


def plot(runs, names, file):
    try:
        from matplotlib import figure
    except ImportError:
        print("\nNo plot: matplotlib is not installed (pip install matplotlib).")
        return
    page = figure.Figure(figsize=(7, 4), layout="constrained")
    axes = page.subplots()
    for name in names:
        for kind, style in (("alone", "-o"), ("ensemble", "--s")):
            by_generation = zip(*(cell[kind] for cell in runs[name]), strict=True)
            means = [sum(column) / len(column) for column in by_generation]
            axes.plot(means, style, label=f"{name}, {kind}")
    axes.set(xlabel="generation (0 is the teacher)", ylabel="test error %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize="small")
    page.savefig(file)
    print(f"\nPlot: {file}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=SIZE)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/furlanello2018_born_again"
    )
    args = parser.parse_args()
    names, epochs, generations = list(schemes()), EPOCHS, GENERATIONS
    if args.smoke:
        args.dataset, args.train_size, args.seeds = "digits", 64, 1
        names, epochs, generations, args.out = names[:2], 1, 1, args.out / "smoke"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, "train_size": args.train_size}
    settings |= {"epochs": epochs, "generations": generations, "depth": DEPTH}
    settings |= {"temperature": TEMPERATURE}
    runs = kd.analysis.Runs(args.out / "errors.json", settings)
    for seed in range(args.seeds):
        few = data.train.few(args.train_size, seed)
        for name in names:
            result = runs.once(
                name,
                seed,
                lambda n=name, s=seed, f=few: chain(data, f, n, s, settings, args.out),
            )
            print(name, f"seed {seed}: {result}", flush=True)
    report(runs, names)
    plot(runs, names, args.out / "generations.png")


if __name__ == "__main__":
    main()
