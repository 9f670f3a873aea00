"""Generated trainings, most with something odd about them, and what their first loss is."""

from dataclasses import dataclass
from typing import Any

import keras
import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from keras import layers

import keras_distill as kd
from tests.formulas import log_softmax

BATCH, CLASSES = 4, 3
NAN, INF = float("nan"), float("inf")
GRADIENT = kd.Tap.input_gradient()
STATES = kd.Tap("head", side="input")
# Those with arguments that depend on the data, and base classes.
ARGUMENTS = {
    "Contrastive": {"samples": 8, "negatives": 4, "width": 3},
    "CurriculumTemperature": {"steps": 10},
    "ScaleDecoupledLogits": {"loss": kd.losses.SoftTarget(2.0)},
    "StandardizedLogits": {"loss": kd.losses.SoftTarget(2.0)},
}
LEFT_OUT = {"DistillationLoss", "Divergence", "FactorTransfer", "Review"}
LOSSES = sorted(set(kd.losses.__all__) - LEFT_OUT)
WITH_TEMPERATURE = {
    "BinarySoftTarget",
    "DecoupledTarget",
    "JensenShannon",
    "PredictionCorrelation",
    "ReverseSoftTarget",
    "SoftTarget",
    "VocabularySoftTarget",
}


@dataclass(frozen=True)
class Case:
    """One training of one batch.

    Args:
        net: kind of both models.
        loss, taps: of the term.
        temperature, weight: of the loss and the term.
        label_loss: name of the loss of the labels, or None.
        labels, weights, dtype: kinds of the batch's parts.
        spoilt: what is not finite, or of another size.
        seed: of all numbers.
    """

    net: str
    loss: str
    taps: str
    temperature: Any
    weight: Any
    label_loss: str | None
    labels: str
    weights: str
    dtype: str
    spoilt: str
    seed: int


def mostly(usual, *odd):
    """Draw one of the usual values seven times out of eight."""
    usual = list(usual)
    return st.integers(0, 7).flatmap(
        lambda n: st.sampled_from(list(odd) if n == 7 else usual)
    )


CASES = st.builds(
    Case,
    net=st.sampled_from(["dense", "conv", "masked", "sequence", "two"]),
    loss=st.sampled_from(
        [*LOSSES, "SoftTarget", "Hint", "LogitRegression", "AttentionMap"]
    ),
    taps=mostly(["natural"], "logits", "hidden", "gradient", "nowhere"),
    temperature=mostly([1.0, 4.0, 1e4], INF, NAN, "4", 0.0, -1.0, 1e9, None, 1j),
    weight=mostly([1.0, 0.5, None], 0.0, INF, NAN, "1", -1.0, True),
    label_loss=st.sampled_from(["sparse", "categorical", "mse", None]),
    labels=mostly(
        ["fitting"],
        *["int", "column", "rows", "mixed", "float", "strings", "none", "outside"],
        *["negative", "nan", "longer", "object", "fraction", "complex"],
    ),
    weights=mostly(
        ["none", "ones", "random"],
        *["column", "zeros", "negative", "nan", "inf", "strings", "wide", "shorter"],
    ),
    dtype=mostly(
        ["float32"],
        *["float64", "float16", "bfloat16", "int32", "uint8", "bool", "complex64"],
        *["object", "str"],
    ),
    spoilt=mostly(
        ["nothing"],
        *["x nan", "x inf", "teacher nan", "teacher inf", "empty", "no features"],
    ),
    seed=st.integers(0, 3),
)


def make_net(kind: str, name: str):
    """Create a small model with layers `hidden` and `head`."""
    if kind in ("masked", "sequence"):
        inputs = keras.Input((5, 2))
        x = layers.Masking()(inputs) if kind == "masked" else inputs
    else:
        x = inputs = keras.Input((6, 6, 1) if kind == "conv" else (4,))
    if kind == "conv":
        x = layers.Conv2D(4, 3, activation="relu", name="hidden")(x)
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.Dense(5, activation="relu", name="hidden")(x)
    outputs = layers.Dense(CLASSES, name="head")(x)
    if kind == "two":
        outputs = {"a": outputs, "b": layers.Dense(CLASSES, name="other")(x)}
    return keras.Model(inputs, outputs, name=name)


def make(case: Case):
    """Create and compile a distiller."""
    keras.utils.set_random_seed(case.seed)
    student, teacher = make_net(case.net, "student"), make_net(case.net, "teacher")
    if case.spoilt.startswith("teacher"):
        value = NAN if case.spoilt.endswith("nan") else INF
        for weight in teacher.trainable_variables[-2:]:
            weight.assign(np.full(weight.shape, value))
    cls, arguments = getattr(kd.losses, case.loss), {}
    if case.loss in WITH_TEMPERATURE:
        arguments["temperature"] = case.temperature
    loss = cls(**arguments, **ARGUMENTS.get(case.loss, {}))
    tap = taps_of(case, loss)
    term = kd.Term(loss, tap, tap, weight=case.weight, name="odd")
    distiller = kd.Distiller(
        student, teacher, terms=[term], label_weight=0.5 if case.label_loss else 0.0
    )
    given = {
        "sparse": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "categorical": keras.losses.CategoricalCrossentropy(from_logits=True),
        "mse": "mse",
        None: None,
    }[case.label_loss]
    distiller.compile(keras.optimizers.SGD(1e-3), given, run_eagerly=True)
    return distiller


def taps_of(case: Case, loss):
    """Return the taps that a loss is made for, or others."""
    output = "logits/a" if case.net == "two" else "logits"
    kind = case.taps
    if kind == "natural":
        at_output = loss.match is kd.adapters.Match.CLASSES or loss.predicts
        kind = "gradient" if loss.takes_gradients else "hidden"
        kind = "logits" if at_output else kind
        kind = "states" if "student_head" in loss.needs else kind
    tap = {
        "logits": output,
        "hidden": "hidden",
        "gradient": GRADIENT,
        "states": STATES,
        "nowhere": "nowhere",
    }[kind]
    if loss.taps == 1:
        return tap
    second = {"gradient": kd.Tap.input_gradient(mirrored=True), "hidden": "hidden"}
    if kind == "states":
        return ("hidden", STATES)
    return (tap, second.get(kind, tap))


def make_batch(case: Case) -> tuple:
    """Return inputs, labels and sample weights."""
    rng = np.random.default_rng(case.seed)
    shape = {"conv": (6, 6, 1), "dense": (4,), "two": (4,)}.get(case.net, (5, 2))
    x = rng.normal(size=(BATCH, *shape)).astype("float32")
    if case.net == "masked":
        x[:, 3:] = 0.0
    lead = (BATCH, 5) if case.net in ("masked", "sequence") else (BATCH,)
    y = make_labels(case, rng, lead)
    weights = make_weights(case.weights, rng)
    x = 2 * x if case.dtype in ("int32", "uint8") else x
    if case.spoilt.startswith("x"):
        x[1] = NAN if case.spoilt.endswith("nan") else INF
    with np.errstate(invalid="ignore"):
        dtype = ml_dtypes.bfloat16 if case.dtype == "bfloat16" else case.dtype
        x = x.astype(dtype)
    if case.spoilt == "no features":
        x = x[..., :0]
    if case.spoilt == "empty":
        x, y, weights = (None if part is None else part[:0] for part in (x, y, weights))
    if case.net == "two" and y is not None:
        y = {"a": y, "b": y}
    return x, y, weights


def make_labels(case: Case, rng, lead: tuple):
    numbers = rng.integers(0, CLASSES, lead)
    rows = np.eye(CLASSES, dtype="float32")[numbers]
    fitting = {"sparse": numbers, None: None, "mse": rows * 2.5}
    if case.labels == "fitting":
        needs = "labels" in getattr(kd.losses, case.loss).needs
        return (
            numbers
            if needs and case.label_loss is None
            else fitting.get(case.label_loss, rows)
        )
    return {
        "int": numbers,
        "column": numbers[..., None],
        "rows": rows,
        "mixed": 0.7 * rows + 0.1,
        "float": numbers.astype("float32"),
        "strings": numbers.astype(str),
        "none": None,
        "outside": numbers + CLASSES,
        "negative": numbers - 1,
        "nan": np.where(numbers == numbers[0], NAN, numbers),
        "longer": np.concatenate([numbers, numbers]),
        "object": np.array([None, *range(BATCH - 1)], dtype=object),
        "fraction": numbers + 0.25,
        "complex": rows * 1j,
    }[case.labels]


def make_weights(kind: str, rng):
    weights = rng.uniform(0.5, 2.0, BATCH).astype("float32")
    first = np.arange(BATCH) == 0
    return {
        "none": None,
        "ones": np.ones(BATCH, "float32"),
        "random": weights,
        "column": weights[:, None],
        "zeros": np.zeros(BATCH, "float32"),
        "negative": np.where(first, -1.0, weights),
        "nan": np.where(first, NAN, weights),
        "inf": np.where(first, INF, weights),
        "strings": weights.astype(str),
        "wide": np.ones((BATCH, 7), "float32"),
        "shorter": weights[:-1],
    }[kind]


def expected_parts(case: Case, distiller, x, y, weights) -> dict:
    """Return the parts of the first loss by NumPy in float64, where there is a formula."""
    if case.net in ("masked", "two"):
        return {}
    weights = np.ones(BATCH) if weights is None else np.float64(weights).reshape(-1)

    def mean(values):
        return (weights.reshape(-1, *[1] * (values.ndim - 1)) * values).mean()

    sides = [
        keras.Model(model.inputs, [model.output, model.get_layer("hidden").output])
        for model in (distiller.student, distiller.teacher.model)
    ]
    x = np.asarray(x).astype("float32")
    (z, hidden), (z_t, hidden_t) = (
        [np.float64(part) for part in model.predict_on_batch(x)] for model in sides
    )
    found = {}
    if case.taps == "natural" and case.loss in ("SoftTarget", "LogitRegression"):
        if case.loss == "LogitRegression":
            values = 0.5 * np.square(z - z_t).sum(-1)
        else:
            t = np.longdouble(case.temperature)
            p, q = (log_wide(part, t) for part in (z_t, z))
            values = np.float64(t**2 * (np.exp(p) * (p - q)).sum(-1))
        found["odd"] = mean(values)
    if case.taps == "natural" and case.loss == "Hint":
        gap = 0.5 * np.square(hidden - hidden_t)
        axes = tuple(range(1, gap.ndim)) if case.net == "conv" else -1
        found["odd"] = mean(gap.mean(axes))
    if case.taps == "natural" and case.loss == "AttentionMap" and case.net == "conv":
        maps = [np.square(h).sum(-1).reshape(BATCH, -1) for h in (hidden, hidden_t)]
        maps = [
            m / np.maximum(np.linalg.norm(m, axis=-1, keepdims=True), 1e-30)
            for m in maps
        ]
        found["odd"] = mean(np.square(maps[0] - maps[1]).mean(-1))
    if case.labels == "fitting" and case.label_loss is not None:
        rows = np.eye(CLASSES)[y] if case.label_loss == "sparse" else np.float64(y)
        if case.label_loss == "mse":
            values = np.square(z - rows).mean(-1)
        else:
            values = -(rows * log_softmax(z)).sum(-1)
        found["label_loss"] = mean(values)
    return found


def log_wide(z, temperature):
    z = np.longdouble(z) / temperature
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))
