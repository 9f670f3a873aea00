"""Every number that a public class or function takes: what is none is refused by name."""

import inspect
import re
import types
import typing

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule

import keras_distill as kd
from tests.losses.contract import ROWS

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = {"nan": NAN, "inf": INF, "-inf": -INF, "1": "1", "True": True, "1j": 1j}
ROOMS = ["adapters", "analysis", "callbacks", "data", "losses", "models"]
ROOMS += ["optimizers", "targets"]
# What functions return, whose fields nobody else sets.
RESULTS = {
    *["Agreement", "Calibration", "ClassCorrelation", "Cost", "GradientRescaling"],
    *["ImageSet", "KnowledgePoints", "LastLayer", "Learning", "PixelEntropies"],
    *["SuggestedTerms", "SuggestedWeights", "TapPair", "TapPairs"],
}
# A key of the data; and what is passed on to Keras.
OF_NO_NUMBERS = {"sample_ids", "verbose"}


def net(name="net", classes=3):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name=name)


def samples():
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    return kd.data.Samples(x, np.arange(12) % 3)


def compiled():
    distiller = kd.Distiller(net("student"), net("teacher"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss)
    return distiller


# What else is needed to call with, by the argument's name; and of one class or function.
NEEDED = {
    **dict.fromkeys(["generalist", "model", "net", "student", "teacher"], net),
    **dict.fromkeys(["data", "samples", "x"], samples),
    "accuracies": lambda: [0.9, 0.8, 0.7],
    "augment": lambda: lambda x, seed: x,
    "backup_dir": lambda: "backup",
    "compiled": lambda: {"optimizer": "sgd", "loss": "mse"},
    "inputs": lambda: samples().images,
    "runs": lambda: kd.analysis.Runs("runs.json"),
    "fit": lambda: lambda *models: None,
    "judge": lambda: lambda model: 0.0,
    "methods": lambda: {"one": lambda *models: None},
    "metadata": lambda: kd.record_metadata(net(), samples().images),
    "blocks": lambda: [("hidden", "hidden")],
    "channels": lambda: 3,
    "class_vectors": lambda: np.eye(3),
    "classes": lambda: 3,
    "clusters": lambda: 2,
    "count": lambda: 2,
    "distiller": compiled,
    "entropies": lambda: np.zeros((1, 2, 2)),
    "exits": lambda: ["hidden"],
    "folder": lambda: "cache",
    "generations": lambda: 1,
    "group": lambda: [0, 1],
    "groups": lambda: [[0, 1]],
    "images": lambda: np.zeros((2, 4, 4, 1), "float32"),
    "input_shape": lambda: (8, 8, 1),
    "loss": kd.losses.Hint,
    "make": lambda: lambda index: net(),
    "masks": lambda: np.zeros((1, 2, 2)),
    "models": lambda: [net("a"), net("b")],
    "paraphraser": kd.adapters.Paraphraser,
    "path": lambda: "hidden",
    "peers": lambda: [net("a"), net("b")],
    "predictions": lambda: np.full((9, 3), 1 / 3),
    "schedule": lambda: CosineDecay(1.0, 10),
    "specialists": lambda: [net(classes=3)],
    "students": lambda: {"student": net()},
    "super_classes": lambda: [0, 0, 1],
    "tap": lambda: "hidden",
    "target_shapes": lambda: [(None, 4, 4, 2)],
}
OF_ONE = {
    "CachedTeacher": {"teacher": net, "top_k": lambda: 2, "temperature": lambda: 4.0},
    "by_class": {"models": lambda: {"student": net()}},
    "compare": dict.fromkeys(["student", "teacher"], lambda: lambda seed: net()),
    "cost": {"samples": lambda: samples().images},
    "Contrastive": {"samples": lambda: 8},
    "CurriculumTemperature": {"steps": lambda: 10},
    "Mixed": {
        "first": lambda: kd.targets.TopK(2),
        "second": lambda: kd.targets.TopK(1),
    },
    "RelatedClasses": {"classes": lambda: 50, "super_classes": lambda: 10},
    "RemotePeers": {
        "name": lambda: "me",
        "peers": lambda: {"a": net()},
        "folder": lambda: "peers",
    },
    "Review": {"levels": lambda: 2},
    "ScaleDecoupledLogits": {"loss": lambda: kd.losses.SoftTarget(2.0)},
    "TopK": {"k": lambda: 2},
    "fit_generations": {"x": lambda: samples().images},
    "fit_specialists": {"samples": samples},
    "record_metadata": {"x": lambda: samples().images, "masks": lambda: 0},
    "suggest_weights": {"batches": lambda: 1},
    "textured_digits": {"samples": samples},
}


def public():
    """Yield the public classes and functions by their names."""
    for room in [kd, *(getattr(kd, name) for name in ROOMS)]:
        for name in room.__all__:
            value = getattr(room, name)
            takes = inspect.isclass(value) or inspect.isfunction(value)
            if takes and name not in RESULTS:
                yield name, value


def kinds_of(annotation) -> list:
    """Return the types that an annotation joins by `|`."""
    is_union = isinstance(annotation, types.UnionType)
    return list(typing.get_args(annotation)) if is_union else [annotation]


def is_number(annotation) -> bool:
    """Whether an argument is a number, perhaps None, a word or a schedule in its place."""
    kinds = kinds_of(annotation)
    others = [int, float, str, types.NoneType, LearningRateSchedule]
    return (int in kinds or float in kinds) and all(kind in others for kind in kinds)


def numbers(kind=None):
    """Yield class or function, its name, and each argument that is a number, or an integer."""
    for name, value in public():
        for argument, parameter in inspect.signature(value).parameters.items():
            annotation = parameter.annotation
            wanted = is_number(annotation) and argument not in OF_NO_NUMBERS
            wanted &= parameter.kind is not parameter.VAR_KEYWORD
            if wanted and (kind is None or kind in kinds_of(annotation)):
                yield pytest.param(name, value, argument, id=f"{name}-{argument}")


def call(name, value, **arguments):
    """Call with an argument, and with all that has no default."""
    signature = inspect.signature(value).parameters.values()
    of_one = OF_ONE.get(name, {})
    for parameter in signature:
        required = parameter.default is parameter.empty
        required &= parameter.kind is not parameter.VAR_KEYWORD
        if parameter.name not in arguments and (required or parameter.name in of_one):
            make = of_one.get(parameter.name) or NEEDED[parameter.name]
            arguments[parameter.name] = make()
    return value(**arguments)


@pytest.mark.parametrize("name, value, argument", numbers())
def test_what_is_no_number_is_refused_by_name(
    name, value, argument, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    named = re.compile(rf"\b{argument}\b")
    for number in NO_NUMBERS.values():
        with pytest.raises((ValueError, TypeError), match=named):
            call(name, value, **{argument: number})


def test_every_loss_is_among_them():
    losses = {param.values[0] for param in numbers()}
    takes = {
        type(row.loss()).__name__
        for row in ROWS
        if any(
            is_number(p.annotation)
            for p in inspect.signature(type(row.loss())).parameters.values()
        )
    }
    assert takes <= losses
    assert {"SoftTarget", "Hint"} & losses == {"SoftTarget"}
    assert len(list(numbers())) > 100


@pytest.mark.parametrize("name, value, argument", numbers(int))
def test_a_fraction_is_no_count(name, value, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1.5, -1):
        with pytest.raises((ValueError, TypeError), match=rf"\b{argument}\b"):
            call(name, value, **{argument: number})


def test_numbers_of_numpy_and_of_backends_are_numbers():
    for number in (np.float32(2.0), np.int64(2), np.array(2.0), keras.ops.ones(()) * 2):
        kd.losses.AttentionMap(number)
        kd.losses.SoftTarget(number)
    assert kd.targets.TopK(np.int64(2)).k == 2
    for number in (2.0, np.float64(2.0)):
        with pytest.raises(
            ValueError, match="k must be an integer of 1 or more; got 2"
        ):
            kd.targets.TopK(number)
    with pytest.raises(TypeError, match="margin must be a number; got 'a'"):
        kd.losses.VotedTriplet(margin="a")
    with pytest.raises(ValueError, match="margin must be 0 or more; got -1"):
        kd.losses.VotedTriplet(margin=-1)
    with pytest.raises(ValueError, match="soft_weight must be 0 to 1; got 2"):
        kd.fit_specialists(net(), [[0, 1]], samples(), compiled={}, soft_weight=2)
