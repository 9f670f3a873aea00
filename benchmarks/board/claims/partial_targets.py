"""Tang 2020: students of partial targets, and the choice of their settings."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

import keras_distill as kd
from claims.training import adam, cross_entropy

SOFT_WEIGHT = 0.7
# What must be chosen before a method.
NEEDS = {"KD-topk": ("KD",), "KD-pt+sim": ("KD-pt", "KD-sim")}


def term(method: str, settings: Mapping[str, float], vectors, groups) -> kd.Term:
    """Return the term of a method.

    Args:
        method: its name.
        settings: what was chosen: the weight of `LS` and `KD-rel`, the temperature of
            `KD`, `KD-pt` and `KD-sim`, the share of similarity of `KD-pt+sim`, k of
            `KD-topk`.
        vectors: the classes' in the teacher's last layer.
        groups: super-class of each class.
    """
    chosen, true = settings.get, kd.targets.TrueClass()
    similar = kd.targets.ClassSimilarity(vectors, temperature=chosen("KD-sim", 0.3))
    rows = {
        "LS": (kd.targets.Uniform(), 1.0, chosen("LS")),
        "KD": (None, chosen("KD"), SOFT_WEIGHT),
        "KD-pt": (true, chosen("KD-pt"), SOFT_WEIGHT),
        "KD-sim": (similar, 1.0, SOFT_WEIGHT),
        "KD-rel": (kd.targets.SuperClasses(groups), 1.0, chosen("KD-rel")),
        "KD-pt+sim": (
            kd.targets.Mixed(true, similar, chosen("KD-pt+sim", 0.5)),
            *(chosen("KD-pt"), SOFT_WEIGHT),
        ),
        "KD-topk": (
            *(kd.targets.TopK(int(chosen("KD-topk", 1))), chosen("KD"), SOFT_WEIGHT),
        ),
    }
    target, temperature, weight = rows[method]
    return kd.Term(kd.losses.SoftTarget(temperature, target=target), weight=weight)


def fit_quickly(
    model, x, y, batch: int, epochs: int, rate: float, jit_compile="auto"
) -> None:
    """Train a small network by Adam, with a rate that falls to 0 by a cosine."""
    steps = epochs * -(-len(y) // batch)
    settings = {"steps_per_execution": 50, "jit_compile": jit_compile}
    model.compile(adam(steps, rate), cross_entropy(), **settings)
    model.fit(x, y, batch, epochs, verbose=0)


def distill(student, x, y, logits, of_method: kd.Term, **training) -> keras.Model:
    """Return a student trained from labels and a method's term.

    Args:
        student: before it is trained.
        x, y: inputs and labels.
        logits: the teacher's of these inputs.
        of_method: what `term` returns.
        training: as in `fit_quickly`.
    """
    distiller = kd.Distiller(
        student,
        kd.GivenTeacher(logits="logits"),
        terms=[of_method],
        label_weight=1.0 - of_method.weight,
    )
    fit_quickly(distiller, {"input": x, "logits": logits}, y, **training)
    return student


def chosen(
    method: str,
    candidates: Mapping[str, Sequence[float]],
    score: Callable[[str, dict], float],
    file: pathlib.Path,
) -> dict[str, float]:
    """Return the settings of a method, and of those that it needs, of the best score.

    Args:
        method: its name; one without candidates has no settings.
        candidates: values to try, by method.
        score: of a method with settings, on samples that are held out.
        file: where the choice is stored.
    """
    settings = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for name in (*NEEDS.get(method, ()), method):
        if name in settings or name not in candidates:
            continue
        scores = [score(name, {**settings, name: x}) for x in candidates[name]]
        settings[name] = candidates[name][int(np.argmax(scores))]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), "utf-8")
    return settings
