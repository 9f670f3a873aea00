"""Predictions, calibrations and costs of all models of a report."""

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace

import keras
import numpy as np

from keras_distill.analysis.agreement import (
    Calibration,
    agreement,
    by_class,
    calibration,
)
from keras_distill.analysis.cost import Cost, cost
from keras_distill.analysis.predictions import classes_of, logits_of
from keras_distill.analysis.won_and_lost import WonAndLost, won_and_lost
from keras_distill.analysis.wrong import wrong
from keras_distill.data.preprocessing import preprocessing_of

TEACHER = "teacher"
# Samples in the batch that is timed.
_TIMED = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What a report knows of its models.

    Args:
        outputs: stand-ins that return the stored logits, by name; the teacher first.
        samples: images and labels; without labels, the classes that the teacher predicts
            stand in for them.
        labeled: whether there are labels.
        costs: by name.
    """

    outputs: dict[str, "StoredPredictions"]
    samples: SimpleNamespace
    labeled: bool
    costs: dict[str, Cost | None]

    @property
    def students(self) -> list[str]:
        """Return the names of the students."""
        return [name for name in self.outputs if name != TEACHER]

    @property
    def measure(self) -> str:
        """Return the name of the measure on the vertical axes."""
        return "accuracy %" if self.labeled else "agreement %"

    def score(self, name: str) -> float:
        """Return the accuracy, or without labels the agreement with the teacher, in %."""
        return 100.0 - 100.0 * wrong(self.outputs[name], self.samples).mean()

    def calibrations(self) -> dict[str, Calibration]:
        """Return the calibration of each model."""
        return {name: calibration(x, self.samples) for name, x in self.outputs.items()}

    def accuracies(self) -> dict[str, np.ndarray]:
        """Return the accuracy of each model on each class."""
        return by_class(self.outputs, self.samples)

    def won_and_lost(self, student: str) -> WonAndLost:
        """Return the samples on which a student and the teacher differ."""
        pair = self.outputs[student], self.outputs[TEACHER]
        return won_and_lost(pair[0], teacher=pair[1], samples=self.samples)

    def rows(self) -> list[dict]:
        """Return the rows of the table."""
        return [self._row(name) for name in self.outputs]

    def _row(self, name: str) -> dict:
        one, teacher = self.outputs[name], self.outputs[TEACHER]
        fidelity = agreement(one, teacher=teacher, samples=self.samples)
        row = {"model": name}
        if self.labeled:
            row["accuracy %"] = f"{self.score(name):.2f}"
        row["agreement %"] = f"{100 * fidelity.top:.2f}"
        if self.labeled:
            where = f"{100 * fidelity.top_where_wrong:.2f}"
            row["agreement where teacher is wrong %"] = where
        row["divergence"] = f"{fidelity.divergence:.4f}"
        if self.labeled:
            error = calibration(one, self.samples).error
            row["calibration error"] = f"{error:.4f}"
        costs = self.costs[name]
        row |= {
            "parameters": costs.parameters,
            "multiplications": costs.multiplications,
        }
        if any(x.seconds_per_image for x in self.costs.values()):
            seconds = costs.seconds_per_image
            row["ms per sample"] = None if seconds is None else f"{1e3 * seconds:.3g}"
        return row


class StoredPredictions:
    """Stand-in for a model that returns its stored logits."""

    def __init__(self, model: keras.Model, data, batch_size: int):
        self.logits = logits_of(model, data, batch_size)
        self.name = model.name

    def predict(self, images, **options) -> np.ndarray:
        """Return the logits of all samples."""
        del images, options
        return self.logits


def measure(
    models: Mapping[str, keras.Model], data, batch_size: int, repeats: int
) -> Measured:
    """Run each model once on the data, and time it on a batch."""
    outputs = {n: StoredPredictions(x, data, batch_size) for n, x in models.items()}
    labeled = getattr(data, "labels", None) is not None
    labels = classes_of(data) if labeled else outputs[TEACHER].logits.argmax(-1)
    images = data.images
    if keras.ops.is_tensor(images):
        images = keras.ops.convert_to_numpy(images)
    samples = SimpleNamespace(images=images, labels=labels)
    costs = {name: _cost(x, data.images, repeats) for name, x in models.items()}
    return Measured(outputs, samples, labeled, costs)


def _cost(model: keras.Model, images, repeats: int) -> Cost:
    preprocess = preprocessing_of(model)
    if preprocess is None:
        return cost(model, images[:_TIMED], repeats)
    # `predict_on_batch` would preprocess once more, so the model is not timed.
    inputs = keras.utils.unpack_x_y_sample_weight(preprocess(images[:1]))[0]
    return cost(model, inputs, 0)
