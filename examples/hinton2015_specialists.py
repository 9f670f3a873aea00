"""Hinton et al. 2015, section 5: specialists for classes that a generalist confuses.

    python examples/hinton2015_specialists.py

The generalist's predictions are clustered, a specialist is trained for each cluster from
the generalist's weights, and all are combined. Small-scale stand-in: digits or CIFAR-10's
JPEG copy instead of JFT with 15,000 classes and 61 specialists; a small conv net trained
on few samples, and specialists trained on all. As in the paper, the table has the
accuracy where specialists cover the true class and where none does. Finished runs are
stored in `--out`.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_distill as kd

CLUSTERS, BATCH, SIZE = 3, 32, 400
EPOCHS, RATES = (
    {"generalist": 60, "specialist": 20},
    {"generalist": 1e-2, "specialist": 1e-3},
)
# Relative change of accuracy in %, by how many specialists cover the class.
PAPER = "JFT: 25.0 to 26.1 % top-1 (+4.4 % relative); 0 covering: 0.0, 1: +3.4, 2: +7.4"


def generalist(data, few, seed, epochs):
    keras.utils.set_random_seed(seed)
    model = kd.models.conv_net(
        data.input_shape, data.classes, filters=(8, 16), name="generalist"
    )
    fit(model, few, epochs, "generalist")
    return model


def compiled(kind):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"optimizer": keras.optimizers.Adam(RATES[kind]), "loss": loss}


def fit(model, samples, epochs, kind):
    model.compile(**compiled(kind))
    model.fit(
        samples.images, samples.labels, batch_size=BATCH, epochs=epochs, verbose=0
    )


def cell(data, seed, settings, folder):
    """Return the accuracies, overall and by whether a specialist covers the class."""
    few = data.train.few(settings["train_size"], seed)
    epochs = settings["epochs"]
    general = generalist(data, few, seed, epochs["generalist"])
    logits = general.predict(data.train.images, verbose=0)
    probabilities = np.array(keras.ops.softmax(logits))
    groups = kd.cluster_classes(probabilities, settings["clusters"], seed=seed)
    special = kd.fit_specialists(
        general,
        groups,
        data.train,
        compiled=compiled("specialist"),
        epochs=epochs["specialist"],
        batch_size=BATCH,
        seed=seed,
        backup=folder / f"specialists_{seed}",
        verbose=0,
    )
    ensemble = kd.SpecialistEnsemble(general, special, groups, nearest=2)
    # Baseline: the generalist itself, trained on the same data.
    general_again = _copy(general)
    fit(general_again, data.train, epochs["specialist"], "specialist")
    covered = np.isin(data.test.labels, [k for group in groups for k in group])
    correct = {
        "generalist": ~kd.analysis.wrong(general, data.test),
        "with specialists": ~kd.analysis.wrong(ensemble, data.test),
        "generalist, trained on": ~kd.analysis.wrong(general_again, data.test),
    }
    result = {name: 100 * mask.mean() for name, mask in correct.items()}
    for kind, part in {"covered": covered, "not covered": ~covered}.items():
        if part.any():
            result |= {f"{n}, {kind}": 100 * m[part].mean() for n, m in correct.items()}
    return {**result, "groups": groups}


def _copy(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--train-size", type=int, default=SIZE)
    parser.add_argument("--clusters", type=int, default=CLUSTERS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/hinton2015_specialists"
    )
    args = parser.parse_args()
    epochs = EPOCHS
    if args.smoke:
        args.seeds, args.out = 1, args.out / "smoke"
        epochs = dict.fromkeys(EPOCHS, 1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, "train_size": args.train_size}
    settings |= {"clusters": args.clusters, "epochs": epochs}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    cells = []
    for seed in range(args.seeds):
        result = runs.once(
            "cell", seed, lambda seed=seed: cell(data, seed, settings, args.out)
        )
        print(f"seed {seed}: {result}", flush=True)
        cells.append(result)
    # Rows that all seeds have: covered or not covered may be empty.
    names = [n for n in cells[0] if n != "groups" and all(n in cell for cell in cells)]
    rows = [
        {"": name, "accuracy %": runs.summary("cell", of=lambda cell, n=name: cell[n])}
        for name in names
    ]
    print(kd.analysis.table(rows))
    print(
        f"\nPaper, {PAPER}. Test accuracy in %, last epoch, mean ± std; seeds: "
        f"{args.seeds}. Settings: {settings}."
    )


if __name__ == "__main__":
    main()
