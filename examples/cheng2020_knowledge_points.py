"""Cheng et al. 2020: knowledge points of students, distilled and trained on labels.

    python examples/cheng2020_knowledge_points.py
    python examples/cheng2020_knowledge_points.py --dataset caltech_birds2011

Pixel entropies at the end of a stage show which cells of an image a network uses. They
are counted on the foreground and the background, at each checkpoint of a training.
Small-scale stand-in: digits on a textured background, with known masks, instead of birds;
small conv nets instead of AlexNet to ResNet-152. The distilled student learns from the
same stage of the teacher alone, as in the paper, and its last layer from labels. Nothing
was tuned. Finished runs are stored in `--out`, with a picture of entropies and points.
"""

import argparse
import pathlib

import keras
import numpy as np

import keras_distill as kd

TAP, GRID, IMAGES, EPOCHS, CHECKPOINTS, BATCH = "stack3", 16, 48, 40, 5, 32
SEARCH = {"steps": 60, "bound": 0.1, "draws": 1}
COLUMNS = ("foreground", "background", "lambda", "D_mean", "D_std", "rho", "accuracy %")
# CUB200-2011, VGG-16, first fully connected layer: S (distilled) and B (labels).
PAPER = {
    "distilled": (43.77, 8.73, 0.84, 0.64, 0.06, 0.66, None),
    "from labels": (22.50, 11.27, 0.68, 2.38, 4.98, 0.50, None),
}


def load(name, seed):
    """Return training samples, test samples, and the masks of the test samples."""
    if name == "digits":
        digits = kd.data.load("digits")
        train, _ = kd.data.textured_digits(digits.train, seed=seed)
        return train, *kd.data.textured_digits(digits.test, seed=1000 + seed)
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def part(split):
        images, labels, masks = [], [], []
        for example in tfds.as_numpy(tfds.load(name, split=split)):
            images.append(tf.image.resize(example["image"], (64, 64)) / 255.0)
            mask = tf.image.resize(example["segmentation_mask"], (64, 64), "nearest")
            masks.append(mask[..., 0].numpy() > 0)
            labels.append(example["label"])
        return kd.data.Samples(np.stack(images), np.array(labels)), np.stack(masks)

    return part("train")[0], *part("test")


def net(train, filters, name):
    classes = int(train.labels.max()) + 1
    shape = train.images.shape[1:]
    return kd.models.conv_net(shape, classes, filters=filters, name=name)


def rate(samples, epochs):
    steps = epochs * -(-len(samples) // BATCH)
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps))


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Checkpoints(keras.callbacks.Callback):
    """Keep the student's weights before the training and every few epochs."""

    def __init__(self, student, every):
        super().__init__()
        self.student, self.every = student, every
        self.weights = [student.get_weights()]

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            self.weights.append(self.student.get_weights())


def train_student(kind, train, teacher, seed, settings):
    """Return the student and its weights at the checkpoints."""
    keras.utils.set_random_seed(1000 + seed)
    student = net(train, (16, 32, 64), "student")
    epochs = settings["epochs"]
    checkpoints = Checkpoints(student, epochs // settings["checkpoints"])
    x, y = train.images, train.labels
    model = student
    if kind == "distilled":
        hint = kd.Term(kd.losses.Hint(), TAP, TAP, weight=1.0)
        model = kd.Distiller(student, teacher, terms=[hint], label_weight=0.0)
        model.compile(rate(train, epochs))
    else:
        model.compile(rate(train, epochs), cross_entropy())
    fit = {"batch_size": BATCH, "epochs": epochs, "callbacks": [checkpoints]}
    model.fit(x, y, verbose=0, **fit)
    return student, checkpoints.weights


def measure(student, weights, test, masks, settings):
    """Return the paper's metrics for one training, and the last entropies."""
    images, masks = test.images[: settings["images"]], masks[: settings["images"]]
    checkpoints, trained = [], []
    for index, values in enumerate(weights):
        student.set_weights(values)
        trained.append([variable.numpy() for variable in student.trainable_variables])
        if index == 0:
            continue
        entropies = kd.analysis.pixel_entropies(
            *(student, images, settings["tap"]),
            grid=settings["grid"],
            **settings["search"],
        ).entropies
        checkpoints.append(kd.analysis.knowledge_points(entropies, masks))
    learning = kd.analysis.learning_of_points(checkpoints, masks, trained)
    last = checkpoints[-1]
    numbers = {
        "foreground": last.on_foreground.mean(),
        "background": last.on_background.mean(),
        "lambda": last.foreground_fraction,
        "D_mean": learning.mean_distance,
        "D_std": learning.variance,
        "rho": learning.stability,
    }
    return numbers, entropies, last


def run(runs, dataset, seed, folder):
    settings = runs.settings
    train, test, masks = load(dataset, seed)
    train = train.few(settings["train_size"] or len(train), seed)
    keras.utils.set_random_seed(seed)
    teacher = net(train, (24, 48, 64), "teacher")
    teacher.compile(rate(train, settings["epochs"]), cross_entropy())
    x, y = train.images, train.labels
    teacher.fit(x, y, batch_size=BATCH, epochs=settings["epochs"], verbose=0)
    print(f"teacher, seed {seed}: {accuracy(teacher, test):.2f} %", flush=True)

    def cell(kind):
        student, weights = train_student(kind, train, teacher, seed, settings)
        numbers, entropies, last = measure(student, weights, test, masks, settings)
        if kind == "distilled":
            for layer in student.layers[:-1]:
                layer.trainable = False
            student.compile(keras.optimizers.Adam(1e-2), cross_entropy())
            student.fit(x, y, batch_size=BATCH, epochs=settings["epochs"], verbose=0)
        numbers["accuracy %"] = accuracy(student, test)
        if seed == 0:
            shown = min(8, len(entropies))
            plot(
                test.images[:shown],
                entropies[:shown],
                last,
                folder / f"{kind.replace(' ', '_')}.png",
            )
        return numbers

    for kind in PAPER:
        result = runs.once(kind, seed, lambda kind=kind: cell(kind))
        print(kind, f"seed {seed}: {result}", flush=True)


def accuracy(model, samples):
    return 100 - 100 * kd.analysis.wrong(model, samples).mean()


def plot(images, entropies, points, file):
    try:
        figure = kd.analysis.plot_knowledge_points(images, entropies, points)
    except ImportError:
        print("\nNo picture: matplotlib is not installed (pip install matplotlib).")
        return
    figure.savefig(file)
    print(f"Picture: {file}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/cheng2020_knowledge_points"
    )
    args = parser.parse_args()
    settings = {"dataset": args.dataset, "tap": TAP, "images": IMAGES, "grid": GRID}
    settings |= {"epochs": EPOCHS, "checkpoints": CHECKPOINTS, "search": SEARCH}
    settings |= {"train_size": None}
    if args.smoke:
        args.seeds, args.out = 1, args.out / "smoke"
        settings |= {"images": 4, "epochs": 2, "checkpoints": 2, "train_size": 128}
        settings |= {"search": {**SEARCH, "steps": 2}}
    args.out.mkdir(parents=True, exist_ok=True)
    runs = kd.analysis.Runs(args.out / "points.json", settings)
    for seed in range(args.seeds):
        run(runs, args.dataset, seed, args.out)
    rows = []
    for kind, paper in PAPER.items():
        rows.append({"": f"{kind}, paper", **dict(zip(COLUMNS, paper, strict=True))})
        ours = {c: runs.summary(kind, of=lambda cell, c=c: cell[c]) for c in COLUMNS}
        rows.append({"": f"{kind}, ours", **ours})
    print(kd.analysis.table(rows))
    print(f"\nMean ± std; seeds: {args.seeds}. Settings: {settings}.")


if __name__ == "__main__":
    main()
