"""Lopes et al. 2017: data-free distillation on MNIST.

    python examples/lopes2017_data_free.py

A 784-1200-1200-10 teacher is trained, and metadata of its activations are saved. A
separate process without access to the data reconstructs inputs from teacher and metadata,
and a 784-800-800-10 student is distilled on them, without labels. Nothing was tuned; the
learning rate of the reconstruction is the package's default. Finished runs are stored in
`--out`, with a picture of reconstructed inputs.
"""

import argparse
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np

import keras_distill as kd

KINDS = {
    "top layer": {"kind": "top"},
    "all layers": {"kind": "all"},
    "all layers, dropout": {"kind": "all", "masks": 5},
    "spectral, all layers": {"kind": "spectral"},
    "spectral, layer pairs": {"kind": "pairs"},
}
# Accuracy in %; from memory, not checked against the paper.
PAPER = {
    "top layer": 68.75,
    "all layers": 76.38,
    "all layers, dropout": 76.40,
    "spectral, all layers": 89.41,
    "spectral, layer pairs": 91.24,
    "with the data": 95.70,
}
TEACHER, STUDENT, BATCH, TEMPERATURE = (1200, 1200), (800, 800), 128, 8.0
EPOCHS, COUNT, STEPS = {"teacher": 10, "student": 60}, 2000, 150


def net(data, units, seed):
    keras.utils.set_random_seed(seed)
    return kd.models.mlp(data.input_shape, data.classes, units=units)


def new_teacher(data, seed, epochs):
    teacher = net(data, TEACHER, seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile(keras.optimizers.Adam(1e-3), loss)
    x, y = data.train.images, data.train.labels
    teacher.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return teacher


def trained_teacher(data, file, seed, epochs):
    if not file.exists():
        new_teacher(data, seed, epochs).save(file)
    return keras.saving.load_model(file)


def distilled(data, teacher, images, seed, epochs):
    student = net(data, STUDENT, 1000 + seed)
    soft = kd.Term(kd.losses.SoftTarget(TEMPERATURE), weight=1.0)
    distiller = kd.Distiller(student, teacher, terms=[soft], label_weight=0.0)
    steps = epochs * -(-len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    distiller.compile(keras.optimizers.Adam(rate))
    distiller.fit(images, batch_size=BATCH, epochs=epochs, verbose=0)
    return 100 - 100 * kd.analysis.wrong(student, data.test).mean()


def reconstruct_in_process(teacher_file, metadata_file, images_file, seed, settings):
    """Reconstruct in a process that has teacher and metadata, but no data."""
    numbers = [str(settings[name]) for name in ("count", "steps")]
    files = [str(file) for file in (teacher_file, metadata_file, images_file)]
    command = [sys.executable, __file__, "--reconstruct", *files, *numbers, str(seed)]
    environment = {k: v for k, v in os.environ.items() if k != "TFDS_DATA_DIR"}
    subprocess.run(command, check=True, env=environment)


def reconstruct(teacher_file, metadata_file, images_file, count, steps, seed):
    teacher = keras.saving.load_model(teacher_file)
    metadata = kd.Metadata.load(metadata_file)
    images = kd.reconstruct(
        teacher, metadata, int(count), steps=int(steps), seed=int(seed), verbose=0
    )
    np.save(images_file, images)


def run(runs, data, seed):
    settings, folder = runs.settings, runs.file.parent
    epochs, few = settings["epochs"], data.train.few(settings["recorded"], seed)
    file = folder / f"teacher_{seed}.keras"
    teacher = trained_teacher(data, file, seed, epochs["teacher"])
    accuracy = lambda model: 100 - 100 * kd.analysis.wrong(model, data.test).mean()  # noqa: E731
    runs.once("teacher", seed, lambda: accuracy(teacher))

    def data_free(name, arguments):
        stem = f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"
        metadata_file = folder / f"{stem}.npz"
        images_file = folder / f"{stem}_images.npy"
        kd.record_metadata(teacher, few.images, **arguments).save(metadata_file)
        reconstruct_in_process(file, metadata_file, images_file, seed, settings)
        images = np.load(images_file, allow_pickle=False)
        return distilled(data, teacher, images, seed, epochs["student"])

    for name in settings["kinds"]:
        result = runs.once(name, seed, lambda n=name: data_free(n, KINDS[n]))
        print(name, f"seed {seed}: {result:.2f} %", flush=True)
    images = data.train.few(min(settings["count"], len(data.train)), seed).images
    runs.once(
        "with the data",
        seed,
        lambda: distilled(data, teacher, images, seed, epochs["student"]),
    )


def plot(folder, kinds, file):
    try:
        from matplotlib import figure
    except ImportError:
        print("\nNo picture: matplotlib is not installed (pip install matplotlib).")
        return
    page = figure.Figure(figsize=(8, 1.1 * len(kinds)), layout="constrained")
    rows = page.subplots(len(kinds), 10, squeeze=False)
    for axes, name in zip(rows, kinds, strict=True):
        stem = f"{name.replace(', ', '_').replace(' ', '_')}_0_images.npy"
        for axis, image in zip(axes, np.load(folder / stem), strict=False):
            axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
        axes[0].set_title(name, loc="left", fontsize="small")
    page.savefig(file, dpi=120)
    print(f"\nPicture: {file}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--reconstruct", nargs=6, help="used by the separate process")
    parser.add_argument("--out", type=pathlib.Path, default="runs/lopes2017_data_free")
    args = parser.parse_args()
    if args.reconstruct:
        reconstruct(*args.reconstruct)
        return
    settings = {"dataset": args.dataset, "kinds": list(KINDS), "count": args.count}
    settings |= {"steps": STEPS, "epochs": EPOCHS, "recorded": 10_000}
    if args.smoke:
        args.seeds, args.out = 1, args.out / "smoke"
        settings |= {
            "dataset": "digits",
            "kinds": ["top layer", "spectral, all layers"],
        }
        settings |= {"count": 32, "steps": 5, "recorded": 200}
        settings |= {"epochs": dict.fromkeys(EPOCHS, 1)}
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(settings["dataset"])
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, seed)
    rows = [
        {"": name, "paper (recalled)": PAPER.get(name), "ours": runs.summary(name)}
        for name in runs.names
    ]
    print(kd.analysis.table(rows))
    print(
        "\nTest accuracy in %, last epoch, mean ± std; 'with the data' uses the same "
        f"number of real images; seeds: {args.seeds}. {settings}."
    )
    plot(args.out, settings["kinds"], args.out / "reconstructed.png")


if __name__ == "__main__":
    main()
