"""The board's pairs at full data on one GPU: JAX, data on the device, an epoch a step.

    KERAS_BACKEND=jax python benchmarks/board/gpu.py --minutes 10

Trains the teachers that are missing, then rows in the order of their worth, attention's
table first, and writes each cell as it ends; the seeds of a row share one compilation.
Images are cropped and mirrored on the device.
`--data FILE.npz` reads `x_train`, `y_train`, `x_test` and `y_test` (uint8) in place of
TFDS.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
from cells import Cell, weights_hash
from methods import row_of
from pairs import BATCH, GPU_PAIRS, LOSS, NETS, TEACHER_EPOCHS, Net, Pair, optimizer

import keras_distill as kd

HERE = pathlib.Path(__file__).parent
# Attention's table, then the rows that the CPU's board begins with.
ORDER = ("alone", "AT", "KD", "KD+AT", "F-ActT", "FitNet", "DKD", "DIST", "SP", "RKD")
PADDING = 4
# For a test that it runs.
SMALL = Pair(
    Net("small_teacher", "conv_net", {"filters": (2, 2, 2)}),
    Net("small", "conv_net", {"filters": (2, 2, 2)}),
    epochs=1,
)


def load(file):
    """Return training and test images `(N, 32, 32, 3)` in uint8, and labels."""
    if file is not None:
        arrays = np.load(file)
        return tuple(arrays[x] for x in ("x_train", "y_train", "x_test", "y_test"))
    data = kd.data.load("cifar10_jpeg")
    return tuple(
        part
        for split in (data.train, data.test)
        for part in (np.round(255 * split.images).astype("uint8"), split.labels)
    )


def normalized(images):
    """Return float images of mean 0 and deviation 1 by channel, about."""
    mean, deviation = jnp.array([0.491, 0.482, 0.447]), jnp.array([0.247, 0.243, 0.262])
    return (images.astype("float32") / 255.0 - mean) / deviation


def augmented(images, key):
    """Return images that are cropped from padded ones and mirrored at random."""
    count, height, width, _ = images.shape
    rows, columns, mirror = jax.random.split(key, 3)
    around = ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0))
    padded = jnp.pad(images, around)
    starts = (
        jax.random.randint(k, (count,), 0, 2 * PADDING + 1) for k in (rows, columns)
    )
    cropped = jax.vmap(
        lambda x, i, j: jax.lax.dynamic_slice(x, (i, j, 0), (height, width, 3))
    )(padded, *starts)
    flip = jax.random.bernoulli(mirror, shape=(count, 1, 1, 1))
    return jnp.where(flip, cropped[:, :, ::-1], cropped)


def batch_of(model, images, ids, labels):
    """Return a batch as a step of the model takes it."""
    if getattr(model, "sample_ids", None):
        return {"image": images, "sample_id": ids}, labels
    return images, labels


def build(model, images, labels) -> dict:
    """Build what the first step builds, and undo the step.

    Returns:
        The weights that are balanced, measured on the first batches.
    """
    before = [np.array(v) for v in model.variables]
    few = jnp.asarray(images[: 4 * BATCH])
    inputs = batch_of(model, normalized(few), np.arange(len(few)), labels[: len(few)])
    model.fit(*inputs, batch_size=BATCH, steps_per_epoch=1, verbose=0)
    terms = getattr(model, "terms", {})
    measured = {name: float(np.array(bound.weight)) for name, bound in terms.items()}
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    for name, weight in measured.items():
        terms[name].weight.assign(weight)
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(jnp.zeros_like(variable.value))
    return measured


def variables_of(model) -> tuple:
    """Return the variables of a state of the step, by kind."""
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )


def epoch_function(model, images, labels):
    """Return a compiled function of a state and a key that trains an epoch."""
    steps = len(labels) // BATCH

    def step(state, choice):
        ids, key = choice
        x = normalized(augmented(images[ids], key))
        logs, state = model.train_step(state, batch_of(model, x, ids, labels[ids]))
        return state, logs

    def epoch(state, key):
        order, keys = jax.random.split(key)
        order = jax.random.permutation(order, len(labels))[: steps * BATCH]
        choices = order.reshape(steps, BATCH), jax.random.split(keys, steps)
        *state, metrics = state
        zeros = jax.tree.map(jnp.zeros_like, metrics)
        state, logs = jax.lax.scan(step, (*state, zeros), choices)
        return state, jax.tree.map(lambda x: x[-1], logs)

    return jax.jit(epoch, donate_argnums=0)


def train(make, images, labels, epochs: int, seeds):
    """Train the same model from several seeds, with one compiled epoch.

    Args:
        make: from a seed to a compiled model or distiller.
        images, labels: on the device.
        epochs: of the training.
        seeds: numbers.

    Yields:
        For each seed its model, trained, its history, and the weights that were balanced.
    """
    few = np.asarray(images[: 4 * BATCH]), np.asarray(labels[: 4 * BATCH])
    run = None
    for seed in seeds:
        # Single operations compile in less time for the host.
        with jax.default_device(jax.devices("cpu")[0]):
            model = make(seed)
            measured = build(model, *few)
        state = [[np.array(v.value) for v in kind] for kind in variables_of(model)]
        state = jax.tree.map(jnp.asarray, tuple(state))
        # The step of the first model: the states of the others fit it.
        run = run or epoch_function(model, images, labels)
        history = {}
        for key in jax.random.split(jax.random.key(seed), epochs):
            state, logs = run(state, key)
            for name, value in logs.items():
                history.setdefault(name, []).append(float(value))
        for kind, values in zip(variables_of(model), state, strict=True):
            for variable, value in zip(kind, values, strict=True):
                variable.assign(value)
        yield model, history, measured


def accuracy(model, images, labels) -> float:
    """Return the accuracy in % in inference form."""
    run = jax.jit(
        lambda weights, x: jnp.argmax(model.stateless_call(*weights, x)[0], axis=-1)
    )
    weights = [
        [v.value for v in kind]
        for kind in (model.trainable_variables, model.non_trainable_variables)
    ]
    found = [
        np.array(run(weights, normalized(jnp.asarray(images[i : i + 1000]))))
        for i in range(0, len(labels), 1000)
    ]
    return 100.0 * float(np.mean(np.concatenate(found) == labels))


def teacher_of(net: Net, data, folder, epochs: int) -> keras.Model:
    """Return a trained teacher, and train it on all images if there is none."""
    file = folder / f"{net.name}.weights.h5"
    if not file.exists():
        images, labels, begin = *data[:2], time.time()

        def make(seed):
            model = net.build(seed)
            model.compile(optimizer(epochs, len(labels)), LOSS, run_eagerly=True)
            return model

        on_device = jnp.asarray(images), jnp.asarray(labels)
        ((model, history, _),) = train(make, *on_device, epochs, [0])
        folder.mkdir(parents=True, exist_ok=True)
        # Without the optimizer.
        plain = net.build(seed=0)
        plain.set_weights(model.get_weights())
        plain.save_weights(file)
        Cell("teacher", net.name, 0).write(
            folder,
            accuracy=accuracy(model, *data[2:]),
            seconds=round(time.time() - begin, 1),
            settings={"epochs": epochs, "images": len(labels)},
            history=history,
            weights=weights_hash(model),
        )
    model = net.build(seed=0)
    model.load_weights(file)
    model.trainable = False
    return model


def run_row(cells: list[Cell], pair: Pair, teacher, data, folder, end: float) -> None:
    """Train a student by a row of the board, seed by seed, until time is over."""
    images, labels = (part[: pair.images] for part in data[:2])
    settings = {"epochs": pair.epochs, "images": len(labels)}

    def make(seed):
        models = pair.student.build(1000 + seed), teacher
        samples = kd.data.Samples(images, labels)
        row = row_of(cells[0].method, pair, models, samples)
        model = row.student
        if row.terms:
            inputs = {"label_weight": row.label_weight}
            if any("sample_ids" in term.loss.needs for term in row.terms):
                inputs |= dict.fromkeys(["student_inputs", "teacher_inputs"], "image")
                inputs["sample_ids"] = "sample_id"
            model = kd.Distiller(model, teacher, terms=row.terms, **inputs)
        optimizer = row.optimizer(pair.epochs, len(labels))
        model.compile(optimizer, LOSS, run_eagerly=True)
        return model

    begin, on_device = time.time(), (jnp.asarray(images), jnp.asarray(labels))
    done = train(make, *on_device, pair.epochs, [cell.seed for cell in cells])
    for cell, (model, history, measured) in zip(cells, done, strict=True):
        student = getattr(model, "student", model)
        cell.write(
            folder,
            accuracy=accuracy(student, *data[2:]),
            seconds=round(time.time() - begin, 1),
            settings=settings,
            balanced=measured,
            history=history,
            weights=weights_hash(student),
        )
        print(cell.read(folder)["accuracy"], cell, flush=True)
        begin = time.time()
        if begin > end:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--teachers", default="", help="to train before the pairs'")
    parser.add_argument("--pairs", default=",".join(GPU_PAIRS))
    parser.add_argument("--methods", default=",".join(ORDER))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "cells")
    parser.add_argument("--smoke", action="store_true", help="small nets, one epoch")
    args = parser.parse_args()
    if args.smoke:
        args.seeds, args.pairs = 1, "small"
    end = time.time() + 60 * args.minutes
    data = load(args.data)
    known = {**GPU_PAIRS, "small": SMALL}
    pairs = {name: known[name] for name in args.pairs.split(",")}
    for name in filter(None, args.teachers.split(",")):
        teacher_of(NETS[name], data, args.out, TEACHER_EPOCHS)
        print(Cell("teacher", name, 0).read(args.out)["accuracy"], name, flush=True)
    for name, pair in pairs.items():
        epochs = 1 if args.smoke else TEACHER_EPOCHS
        teacher = teacher_of(pair.teacher, data, args.out, epochs)
        for method in args.methods.split(","):
            cells = [Cell(method, name, seed) for seed in range(args.seeds)]
            cells = [cell for cell in cells if not cell.is_done(args.out)]
            if cells and time.time() < end:
                run_row(cells, pair, teacher, data, args.out, end)


if __name__ == "__main__":
    main()
