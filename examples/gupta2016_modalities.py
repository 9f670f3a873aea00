"""Gupta, Hoffman, Malik 2016: transfer from one modality to another.

    python examples/gupta2016_modalities.py

The teacher is trained on images; the student gets another modality of the same scenes,
with few labels. Unlabeled pairs transfer the teacher's mid-level features; then the
student is trained on its few labels. Small-scale stand-in: digits instead of color and
depth images, with differences of brightness (two channels) as the second modality.
Nothing was tuned. Finished runs are stored in `--out` and not repeated.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_distill as kd

LABELED, BATCH = 100, 32
EPOCHS = {"teacher": 20, "pairs": 30, "labels": 60}
FILTERS = (16, 32)
# Mean average precision of detection in depth images of NYUD2 in %; from memory, not
# checked against the paper.
PAPER = {"labels alone": 34.2, "carried over, then labels": 41.7}


def differences(images):
    """Return the second modality: vertical and horizontal differences, `(N, H, W, 2)`."""
    down = np.diff(images, axis=1, append=0.0)
    right = np.diff(images, axis=2, append=0.0)
    return np.concatenate([down, right], axis=-1)


def fit(model, x, y, epochs):
    steps = epochs * -(-len(keras.tree.flatten(x)[0]) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), None if y is None else loss)
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)


def net(data, channels, seed, name):
    keras.utils.set_random_seed(seed)
    shape = (*data.input_shape[:-1], channels)
    return kd.models.conv_net(shape, data.classes, filters=FILTERS, name=name)


def transfer(student, teacher, images, epochs):
    """Match the mid-level features of pairs, with a modality for each network."""
    hint = kd.Term(kd.losses.Hint(), student="stack2", teacher="stack2")
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[hint],
        label_weight=0.0,
        student_inputs="differences",
        teacher_inputs="image",
    )
    pairs = {"image": images, "differences": differences(images)}
    fit(distiller, pairs, None, epochs)


def run(runs, data, seed):
    """Train and evaluate all models with one seed."""
    epochs = runs.settings["epochs"]
    file = runs.file.parent / f"teacher_{seed}.keras"
    if not file.exists():
        teacher = net(data, data.input_shape[-1], seed, "teacher")
        fit(teacher, data.train.images, data.train.labels, epochs["teacher"])
        teacher.save(file)
    teacher = keras.saving.load_model(file)
    few = data.train.few(runs.settings["labelled"], seed)
    test = kd.data.Samples(differences(data.test.images), data.test.labels)

    def student(carried):
        made = net(data, 2 * data.input_shape[-1], 1000 + seed, "student")
        if carried:
            transfer(made, teacher, data.train.images, epochs["pairs"])
        fit(made, differences(few.images), few.labels, epochs["labels"])
        return made

    cells = {
        "teacher, on images": lambda: kd.analysis.wrong(teacher, data.test),
        "labels alone": lambda: kd.analysis.wrong(student(False), test),
        "carried over, then labels": lambda: kd.analysis.wrong(student(True), test),
    }
    for name, wrong in cells.items():
        result = runs.once(name, seed, lambda wrong=wrong: 100 - 100 * wrong().mean())
        print(name, f"seed {seed}: {result:.2f} %", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/gupta2016_modalities")
    args = parser.parse_args()
    epochs = EPOCHS
    if args.smoke:
        args.dataset, args.seeds, args.out = "digits", 1, args.out / "smoke"
        epochs = dict.fromkeys(EPOCHS, 1)
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, "labelled": LABELED, "epochs": epochs}
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, seed)
    ours = f"accuracy %, {args.dataset}"
    rows = [
        {"net": name, "paper, NYUD2": PAPER.get(name), ours: runs.summary(name)}
        for name in runs.names
    ]
    print(kd.analysis.table(rows))
    print(f"\nLast epoch, mean ± std; seeds: {args.seeds}. Settings: {settings}.")


if __name__ == "__main__":
    main()
