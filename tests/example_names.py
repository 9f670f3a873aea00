"""The names that the examples in docstrings use: tiny models, data and results."""

import types

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import keras_distill as kd

CLASSES, COUNT = 10, 32
SHAPE = (8, 8, 1)


def example_names() -> dict:
    """Return all names."""
    return {
        "kd": kd,
        "keras": keras,
        "np": np,
        "ops": ops,
        "tf": tf,
        "onnxruntime": types.SimpleNamespace(InferenceSession=_Session),
        **_arrays(),
        **_data(),
        **_models(),
        **_comparison(),
    }


class _Session:
    """An ONNX session, of a teacher that predicts nothing."""

    def __init__(self, file):
        self.file = file

    def run(self, names, inputs):
        return [np.zeros((len(inputs["x"]), CLASSES), "float32")]


def _net(classes=CLASSES, name="net"):
    return kd.models.conv_net(SHAPE, classes, filters=(3, 4, 6), name=name)


def _data() -> dict:
    full = kd.data.load("digits")
    samples = full.train[: 2 * COUNT]
    digits = kd.data.ImageSet("digits", samples, full.test[:COUNT], classes=CLASSES)
    return {
        "digits": digits,
        "samples": samples,
        "train": kd.data.batches(samples[:COUNT], COUNT),
        "images": digits.test.images,
        "labels": digits.test.labels,
    }


def _arrays() -> dict:
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype("float32")

    masks = np.zeros((COUNT, 8, 8), bool)
    masks[:, 2:6, 2:6] = True
    entropies = normal(COUNT, 4, 4)
    points = kd.analysis.knowledge_points(entropies, masks)
    return {
        "logits": normal(COUNT, CLASSES),
        "features": normal(COUNT, 6),
        "teacher_logits": normal(COUNT, CLASSES),
        "student_logits": normal(COUNT, CLASSES),
        "teacher_values": normal(COUNT, 3),
        "student_values": normal(COUNT, 3),
        "teacher_scores": normal(COUNT, 20),
        "student_scores": normal(COUNT, 20),
        "maps": normal(2, 8, 8, 4),
        "tokens": normal(2, 197, 4),
        "student_early": normal(2, 16, 16, 4),
        "student_deep": normal(2, 8, 8, 8),
        "masks": masks,
        "entropies": entropies,
        "checkpoints": [points, points],
        "weights": [[np.full(3, x)] for x in (1.0, 2.0, 3.0)],
    }


def _models() -> dict:
    student, teacher = _net(name="student"), _net(name="teacher")
    first, second, third = (_net(name=name) for name in ("first", "second", "third"))
    soft = kd.Term(kd.losses.SoftTarget(4.0))
    hint = kd.Term(kd.losses.Hint(), "stack3", "stack3")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = kd.Distiller(student, teacher, terms=[soft, hint])
    distiller.compile("adam", loss, metrics=["accuracy"])
    groups = [[0, 1, 2], [3, 4, 5]]
    return {
        "student": student,
        "teacher": teacher,
        "distiller": distiller,
        "net": student,
        "model": teacher,
        "generalist": teacher,
        "first": first,
        "second": second,
        "third": third,
        "small": first,
        "large": second,
        "alone": first,
        "distilled": second,
        "soft": soft,
        "hint": hint,
        "loss": loss,
        "groups": groups,
        "specialists": [_net(classes=len(group) + 1) for group in groups],
        "chain": [kd.Generation(student, {})],
    }


def _comparison() -> dict:
    """Return what runs over several seeds, without training."""
    return {
        "make": lambda generation: _net(),
        "make_student": lambda seed=0: _net(),
        "load_teacher": lambda seed: _net(),
        "fit": lambda model, seed, callbacks: None,
        "accuracy": lambda model: 0.9,
        "trained": lambda seed, epochs: (9.0, 10.0, 13.0)[seed],
        "errors": lambda model: model,
    }
