"""Beyer et al. 2022: a good teacher is patient and consistent.

    python examples/beyer2022_patient.py

Distillation as function matching: student and teacher see the same view of each image,
with many views, no labels, and long training. The teacher's predictions on all views are
computed once and read from a cache. Baselines: no augmentation, fixed predictions on the
original image, and independent views for both. Small-scale stand-in: digits instead of
ImageNet, shifts and brightness instead of crops and mixup, residual networks of 20 and 8
layers; the student sees few samples, the teacher all. Nothing was tuned. Finished runs
are stored in `--out` and not repeated.

With `--mix` also on images that RandAugment, MixUp and CutMix make anew in each pass, by
KerasCV if it is installed and else by Keras: student and teacher see the same mixed
image, without its labels and with them.
"""

import argparse
import importlib
import importlib.util
import pathlib

import keras
import tensorflow as tf

import keras_distill as kd

SAMPLES, VIEWS, BATCH, TEMPERATURE = 400, 32, 64, 2.0
TEACHER_EPOCHS, STUDENT_EPOCHS = 40, (20, 80)
# ImageNet, ResNet-50 from a BiT ResNet-152x2, top-1 in %, consistent views, 9,600 epochs;
# from memory, not checked against the paper.
PAPER = {"consistent views, 80 epochs": 82.8}


# The label weight of schemes on mixed images.
MIXED = {"mixed images": 0.0, "mixed images and labels": 1.0}


def augment(image, seed):
    """Shift by up to one pixel, and change the brightness."""
    size = tf.shape(image)
    image = tf.image.resize_with_crop_or_pad(image, size[0] + 2, size[1] + 2)
    image = tf.image.stateless_random_crop(image, size, seed)
    return tf.image.stateless_random_brightness(image, 0.2, seed)


def net(data, depth, seed, name):
    keras.utils.set_random_seed(seed)
    return kd.models.resnet(
        data.input_shape, data.classes, depth=depth, width=16, name=name
    )


def fit(model, train, epochs, loss=None):
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(train))
    model.compile(keras.optimizers.Adam(schedule), loss)
    model.fit(train, epochs=epochs, verbose=0)


def trained_teacher(runs, data, seed, epochs):
    file = runs.file.parent / f"teacher_{seed}.keras"
    if not file.exists():
        teacher = net(data, 20, seed, "teacher")
        views = kd.data.Views(augment, 1000, seed=seed)
        train = kd.data.batches(data.train, BATCH, shuffle=True, augment=views)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        fit(teacher, train, epochs, loss)
        teacher.save(file)
    return keras.saving.load_model(file)


def consistent(runs, few, teacher, seed):
    """Return the cache of all views, and batches joined with its predictions."""
    views = kd.data.Views(augment, runs.settings["views"], seed=seed)
    folder = runs.file.parent / f"cache_{seed}"
    cached = kd.CachedTeacher(folder, teacher, views=views)
    cached.build(few, verbose=0)
    train = kd.data.batches(few, BATCH, shuffle=True, augment=views, sample_ids=True)
    return cached, cached.join(train), None


def apart(few, student_views, teacher_views):
    """Return batches with separate images for student and teacher."""
    train = kd.data.batches(
        few, BATCH, shuffle=True, augment=student_views, sample_ids=True
    )
    images, order = tf.constant(few.images), tf.argsort(few.ids)
    ids = tf.sort(few.ids)

    def add_image(x, y):
        index = tf.gather(order, tf.searchsorted(ids, x["sample_id"]))
        return {**x, "for_teacher": tf.gather(images, index)}, y

    train = train.map(add_image)
    if teacher_views is not None:
        single = teacher_views.drawn(train.unbatch(), image="for_teacher")
        train = single.apply(tf.data.experimental.assert_cardinality(len(few)))
        train = train.batch(BATCH)
    return train


def mixing(channels, seed):
    """Return a layer that augments images, and mixes pairs of them and their labels."""
    layers = keras.layers
    if importlib.util.find_spec("keras_cv") is not None:
        layers = importlib.import_module("keras_cv").layers
    # That of KerasCV takes colors alone.
    kind = layers if channels == 3 else keras.layers
    augment = kind.RandAugment(value_range=(0, 1), seed=seed)
    pair = [layers.MixUp(seed=seed + 1), layers.CutMix(seed=seed + 2)]
    return keras.layers.Pipeline([augment, *pair])


def mixed(data, few, teacher, seed):
    """Return batches of mixed images and labels, the same for student and teacher."""
    augment = mixing(data.input_shape[-1], seed)
    train = kd.data.batches(
        few, BATCH, shuffle=True, augment=augment, classes=data.classes, sample_ids=True
    )
    return teacher, train, "image"


def schemes(runs, data, few, teacher, seed):
    """Return teacher, batches and name of the teacher's inputs, by scheme."""
    count = runs.settings["views"]
    views, more = (kd.data.Views(augment, count, seed=seed + n) for n in (0, 1000))
    found = {
        "no augmentation": lambda: (teacher, apart(few, None, None), "for_teacher"),
        "fixed predictions": lambda: (teacher, apart(few, views, None), "for_teacher"),
        "views apart": lambda: (teacher, apart(few, views, more), "for_teacher"),
        "consistent views": lambda: consistent(runs, few, teacher, seed),
    }
    if runs.settings.get("mix"):
        for name in MIXED:
            found[name] = lambda: mixed(data, few, teacher, seed)
    return found


def accuracy(data, seed, scheme, epochs, label_weight=0.0):
    teacher, train, teacher_inputs = scheme()
    student = net(data, 8, 1000 + seed, "student")
    distiller = kd.Distiller(
        student,
        teacher,
        terms=[kd.Term(kd.losses.SoftTarget(TEMPERATURE))],
        label_weight=label_weight,
        student_inputs="image",
        teacher_inputs=teacher_inputs,
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    fit(distiller, train, epochs, loss if label_weight else None)
    return 100 - 100 * kd.analysis.wrong(student, data.test).mean()


def run(runs, data, seed):
    """Train and evaluate all schemes with one seed."""
    epochs = runs.settings["epochs"]
    teacher = trained_teacher(runs, data, seed, epochs["teacher"])
    runs.once(
        "teacher",
        seed,
        lambda: 100 - 100 * kd.analysis.wrong(teacher, data.test).mean(),
    )
    few = data.train.few(runs.settings["samples"], seed)
    for name, scheme in schemes(runs, data, few, teacher, seed).items():
        weight = MIXED.get(name, 0.0)
        for count in epochs["student"]:
            cell = f"{name}, {count} epochs"
            result = runs.once(
                cell,
                seed,
                lambda s=scheme, n=count, w=weight: accuracy(data, seed, s, n, w),
            )
            print(cell, f"seed {seed}: {result:.2f} %", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mix", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default="runs/beyer2022_patient")
    args = parser.parse_args()
    epochs = {"teacher": TEACHER_EPOCHS, "student": STUDENT_EPOCHS}
    settings = {"samples": SAMPLES, "views": VIEWS}
    if args.smoke:
        args.dataset, args.seeds, args.out = "digits", 1, args.out / "smoke"
        settings = {"samples": 64, "views": 2}
        epochs = {"teacher": 1, "student": (1,)}
    if args.mix:
        args.out /= "mix"
    args.out.mkdir(parents=True, exist_ok=True)
    data = kd.data.load(args.dataset)
    settings = {"dataset": args.dataset, **settings, "epochs": epochs}
    if args.mix:
        settings["mix"] = True
    runs = kd.analysis.Runs(args.out / "accuracies.json", settings)
    for seed in range(args.seeds):
        run(runs, data, seed)
    ours = f"accuracy %, {args.dataset}"
    rows = [
        {
            "scheme": name,
            "paper, ImageNet (recalled)": PAPER.get(name),
            ours: runs.summary(name),
        }
        for name in runs.names
    ]
    print(kd.analysis.table(rows))
    print(f"\nLast epoch, mean ± std; seeds: {args.seeds}. Settings: {settings}.")


if __name__ == "__main__":
    main()
