"""Lopes 2017: students of reconstructed images, by what is recorded of activations."""

import dataclasses

import lopes2017_data_free as example
import numpy as np

import keras_distill as kd
from claims.protocol import Claim, Protocol
from claims.training import accuracy, stored

IMAGES, RECORDED, COUNT, PORTION, STEPS = 60_000, 10_000, 10_000, 500, 500
EPOCHS = example.EPOCHS
SETTINGS = {
    "kinds": example.KINDS,
    "recorded": RECORDED,
    "images": COUNT,
    "steps": STEPS,
    "epochs": EPOCHS,
    "temperature": example.TEMPERATURE,
}
SMOKE = {
    "IMAGES": 200,
    "RECORDED": 100,
    "COUNT": 40,
    "PORTION": 20,
    "STEPS": 2,
    "EPOCHS": dict.fromkeys(EPOCHS, 1),
}
ABOUT = f"""The paper's nets on MNIST, 784-1200-1200-10 and 784-800-800-10: metadata of the
activations of {RECORDED:,} images, and {COUNT:,} images that are reconstructed from them in
{STEPS} steps each. A student learns these without labels, {EPOCHS["student"]} epochs at
T = {example.TEMPERATURE:g}; "with the data" it learns as many real images, in the paper all
of them. Otherwise the functions and settings of `examples/lopes2017_data_free.py`. Test
accuracy in %; the paper's figures are quoted from memory and were not checked. Nothing was
tuned."""


def reconstructed(row: str, teacher, images, seed: int, scratch) -> np.ndarray:
    """Return the images of a row; each portion is stored, so that a killed run goes on."""
    metadata = kd.record_metadata(teacher, images, **example.KINDS[row])
    name = f"{row}_{seed}".replace(", ", "_").replace(" ", "_")
    portions = [
        stored(
            scratch / f"{name}_{start}.npy",
            lambda start=start: kd.reconstruct(
                *(teacher, metadata, PORTION),
                steps=STEPS,
                batch_size=PORTION,
                seed=COUNT * seed + start,
                verbose=0,
            ),
            save=lambda images, file: np.save(file, images),
            load=np.load,
        )
        for start in range(0, COUNT, PORTION)
    ]
    return np.concatenate(portions)


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train and evaluate a row."""
    data = kd.data.load("mnist")
    data = dataclasses.replace(data, train=data.train[:IMAGES])
    teacher = stored(
        scratch / f"teacher_{seed}.keras",
        lambda: example.new_teacher(data, seed, EPOCHS["teacher"]),
    )
    if row == "teacher":
        return {"accuracy": accuracy(teacher, data.test)}
    if row == "with the data":
        images = data.train.few(COUNT, seed).images
    else:
        recorded = data.train.few(RECORDED, seed).images
        images = reconstructed(row, teacher, recorded, seed, scratch)
    epochs = EPOCHS["student"]
    return {"accuracy": float(example.distilled(data, teacher, images, seed, epochs))}


PROTOCOL = Protocol(
    name="lopes2017_data_free",
    title="Lopes 2017: data-free distillation",
    about=ABOUT,
    rows=("teacher", "with the data", *example.KINDS),
    train=train,
    claims=(
        Claim(
            "Activations of all layers are better than those of the last alone",
            *("all layers", "top layer", "accuracy"),
        ),
        Claim(
            "Spectra of all layers are better than means",
            *("spectral, all layers", "all layers", "accuracy"),
        ),
        Claim(
            "Spectra of pairs of layers are better than those of all layers",
            *("spectral, layer pairs", "spectral, all layers", "accuracy"),
        ),
    ),
    settings=SETTINGS,
    paper={name: f"{value:.2f}" for name, value in example.PAPER.items()},
)
