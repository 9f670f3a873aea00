"""Training a cell on a CPU: batches, the teacher's outputs, and a run that can be killed."""

import json
import pathlib
import shutil
import time

import keras
import tensorflow as tf
from cells import Cell, weights_hash
from methods import CACHED, FROM_CACHE, row_of
from pairs import BATCH, LOSS, Net, Pair

import keras_distill as kd

# Views of each image, so that the teacher's outputs of all can be cached; each epoch
# draws one of them.
VIEWS, PADDING = 20, 4
# Parts of a batch that pass the teacher one by one, in caches nearer to the core.
PORTIONS = 4
MEAN, DEVIATION = [0.491, 0.482, 0.447], [0.247, 0.243, 0.262]


def load(name: str) -> kd.data.ImageSet:
    """Return a data set by name, its images of mean 0 and deviation 1 by channel."""
    data = kd.data.load(name)
    splits = [
        kd.data.Samples(
            (split.images - MEAN).astype("float32") / DEVIATION, split.labels
        )
        for split in (data.train, data.test)
    ]
    return kd.data.ImageSet(name, *splits, data.classes)


def augment(image, seed):
    """Crop an image from a padded one, and mirror it, at random."""
    size = tf.shape(image)
    padded = tf.image.resize_with_crop_or_pad(
        image, size[0] + 2 * PADDING, size[1] + 2 * PADDING
    )
    image = tf.image.stateless_random_crop(padded, size, seed)
    return tf.image.stateless_random_flip_left_right(image, seed + 1)


class Progress(keras.callbacks.Callback):
    """Notes the history and the seconds of a run, also over kills."""

    def __init__(self, file: pathlib.Path):
        super().__init__()
        self.file = file
        self.epochs = json.loads(file.read_text()) if file.exists() else []

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.begin = time.time()

    def on_epoch_end(self, epoch, logs=None):
        """Write the epoch, in place of one that is repeated."""
        numbers = {name: round(float(x), 6) for name, x in logs.items()}
        seconds = round(time.time() - self.begin, 1)
        self.epochs[epoch:] = [{**numbers, "seconds": seconds}]
        self.file.write_text(json.dumps(self.epochs))

    def history(self) -> dict:
        """Return the values of all epochs by name."""
        names = self.epochs[-1]
        return {name: [epoch[name] for epoch in self.epochs] for name in names}


def trained(net: Net, folder: pathlib.Path) -> keras.Model | None:
    """Return a network with the weights of a folder, None if it is not trained yet."""
    file = folder / f"{net.name}.weights.h5"
    if not file.exists():
        return None
    model = net.build(seed=0)
    model.load_weights(file)
    model.trainable = False
    return model


def cached_teacher(teacher, samples, folder, taps="logits") -> kd.CachedTeacher:
    """Return a teacher whose outputs of all views, its logits or more, are read from disk."""
    views = kd.data.Views(augment, VIEWS)
    cached = kd.CachedTeacher(folder, teacher, taps=taps, views=views, dtype="float32")
    return cached.build(samples, verbose=0)


def fast_teacher(teacher, samples) -> kd.Teacher:
    """Return a teacher frozen in bfloat16, whose batch passes in portions."""
    frozen = kd.freeze(teacher, samples.images[:64], dtype="bfloat16")
    return kd.Teacher(frozen, portions=PORTIONS)


def run_cell(cell: Cell, pair: Pair, teacher, data, folder, scratch) -> None:
    """Train a student by a row of the board, from where it was killed, and write the cell.

    Args:
        cell: to train.
        pair: of networks.
        teacher: trained.
        data: whose first images the student has.
        folder: of cells.
        scratch: of caches and of what is left of a killed run.
    """
    samples = data.train[: pair.images]
    models = pair.student.build(1000 + cell.seed), teacher
    row = row_of(cell.method, pair, models, samples)
    student = row.student
    views = kd.data.Views(augment, VIEWS)
    train = kd.data.batches(
        samples,
        BATCH,
        shuffle=True,
        seed=cell.seed,
        augment=views,
        sample_ids=True,
        drop_remainder=True,
    )
    reads = cell.method in FROM_CACHE
    teaching = "cached" if reads else "frozen in bfloat16" if row.terms else "none"
    if reads:
        name = f"{pair.teacher.name}-{len(samples)}"
        teacher = cached_teacher(teacher, samples, scratch / name, CACHED)
        train = teacher.join(train)
    elif row.terms:
        teacher = fast_teacher(teacher, samples)
    if row.terms:
        sides = dict.fromkeys(["student_inputs", "teacher_inputs"], "image")
        sides = {"student_inputs": "image"} if reads else sides
        learns = {"terms": row.terms, "label_weight": row.label_weight}
        model = kd.Distiller(
            student, teacher, **learns, sample_ids="sample_id", **sides
        )
    else:
        model, train = student, train.map(lambda x, y: (x["image"], y))
    optimizer = row.optimizer(pair.epochs, len(samples))
    model.compile(optimizer, LOSS, metrics=["accuracy"])
    run = scratch / str(cell)
    run.mkdir(parents=True, exist_ok=True)
    progress = Progress(run / "epochs.json")
    fit(model, train, pair.epochs, progress, run / "backup")
    weights = {
        name: float(keras.ops.convert_to_numpy(bound.weight))
        for name, bound in getattr(model, "terms", {}).items()
    }
    cell.write(
        folder,
        accuracy=accuracy(student, data.test),
        seconds=round(sum(epoch["seconds"] for epoch in progress.epochs)),
        settings={
            "epochs": pair.epochs,
            "images": len(samples),
            "views": VIEWS,
            "teacher": teaching,
        },
        balanced=weights,
        history=progress.history(),
        weights=weights_hash(student),
    )
    shutil.rmtree(run)


def fit(model, train, epochs: int, progress: Progress, backup) -> None:
    """Train, from the last whole epoch of a run that was killed."""
    if isinstance(model, kd.Distiller):
        saving = kd.BackupAndRestore(backup)
    else:
        # Keras's own repeats the order of the first epochs; here that is of no weight.
        saving = keras.callbacks.BackupAndRestore(backup)
    model.fit(train, epochs=epochs, verbose=0, callbacks=[progress, saving])


def accuracy(model, samples) -> float:
    """Return the accuracy in %."""
    return round(100 - 100 * float(kd.analysis.wrong(model, samples).mean()), 2)
