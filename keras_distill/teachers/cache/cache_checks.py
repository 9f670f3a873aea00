"""Checks of a cache: its arguments, and what made it."""

import json
import os
from collections.abc import Sequence

import keras

from keras_distill._backend.array_kinds import kind_of
from keras_distill._backend.number_checks import check_above, check_integers
from keras_distill.data.preprocessing import preprocessing_of
from keras_distill.data.views import Views
from keras_distill.taps import Tap, heads
from keras_distill.teachers.base_teacher import CLASSES, VALUES, BaseTeacher, Request
from keras_distill.teachers.cache.contents import Contents
from keras_distill.teachers.cache.forms import TopK

# Above it, what rounding leaves of a log-probability is magnified to a tenth of a logit.
HIGHEST_OF_FLOAT16, HIGHEST_OF_FLOAT32 = 100.0, 1e3


def check_taps(taps: Sequence[Tap]) -> None:
    """Check that no tap is a gradient, which depends on labels and uncached values."""
    gradients = [str(tap) for tap in taps if tap.is_gradient]
    if gradients or not taps:
        raise ValueError(
            "A cache stores logits and outputs of layers, at least one; got "
            f"{gradients or 'no taps'}. Pass the teacher itself to a distiller whose "
            "terms tap gradients."
        )


def check_folder(folder) -> None:
    """Check that the folder of a cache is a path, and not the teacher."""
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(
            "A cache has a folder: expected a path, as in kd.CachedTeacher('cache', "
            f"teacher); got {type(folder).__name__}."
        )


def check_kinds(inputs: Sequence) -> None:
    """Check that the inputs of a cached teacher are real numbers, which marks can be of."""
    for array in inputs:
        if (kind := kind_of(array)) != "number":
            fix = {
                "string": "Map strings to numbers in the data, by "
                "keras.layers.StringLookup or a tokenizer.",
                "complex": "Pass the real and imaginary parts as channels.",
                None: "Convert it, as in np.asarray(x, 'float32').",
            }
            raise TypeError(
                "A cache recognizes samples by the numbers that the teacher takes; got an "
                f"input of the dtype {array.dtype}. {fix[kind]}"
            )


def check_takes_tensors(models: Sequence) -> None:
    """Check that no teacher takes raw data, which a cache would not preprocess."""
    for model in models:
        if preprocessing_of(model) is not None:
            raise ValueError(
                f"The teacher '{model.name}' preprocesses raw data in its fit and predict, "
                "which a cache does not do. Map the data through its preprocessor, as "
                "data.map(lambda x: {**x, 'image': teacher.preprocessor(x['image'])}), "
                "and set teacher.preprocessor = None, before the cache is created."
            )


def check_temperature(top_k, temperature, is_ensemble: bool, dtype: str) -> None:
    """Check that a temperature is passed if the predictions depend on it."""
    if top_k is not None:
        check_integers(1, top_k=top_k)
    if temperature is not None:
        check_above(0, temperature=temperature)
        exact = dtype == "float32" and top_k is None
        highest = HIGHEST_OF_FLOAT32 if exact else HIGHEST_OF_FLOAT16
        if temperature > highest:
            kind = "float32" if exact else "float16"
            raise ValueError(
                f"temperature must be at most {highest:g} in a cache that stores "
                f"predictions in {kind}, above which T magnifies rounding errors; got "
                f"{temperature:g}. At such temperatures soft targets are the squared "
                "difference of centered logits: cache those of one teacher, without "
                "top_k, and use kd.losses.LogitRegression."
            )
    if temperature is None and (top_k is not None or is_ensemble):
        which = "with top_k" if top_k is not None else "of an ensemble"
        raise ValueError(
            f"A cache {which} stores predictions at one temperature: pass that of the "
            "loss, as in temperature=4.0."
        )


def check_top_k(top_k, predicts: str | None) -> None:
    """Check that the largest probabilities are stored of a softmax alone."""
    if top_k is not None and predicts not in (None, CLASSES):
        raise ValueError(
            f"top_k stores the largest probabilities of a softmax over classes; this "
            f"ensemble predicts {predicts}. Leave top_k out."
        )


def check_preprocessing(preprocessing) -> None:
    """Check that what is applied to the teacher's inputs is a layer.

    Raises:
        TypeError: it is not. A function has no configuration that a cache could compare.
    """
    if preprocessing is not None and not isinstance(preprocessing, keras.Layer):
        raise TypeError(
            "preprocessing must be a keras.Layer, whose configuration and weights the "
            f"cache compares when it is opened again; got {preprocessing!r}. Pass a layer "
            "such as keras.layers.Rescaling(1 / 127.5, -1.0), or apply the function to "
            "the data."
        )


def check_views(views) -> None:
    """Check that augmentation can be replayed."""
    if views is not None and not isinstance(views, Views):
        raise TypeError(
            "views must be a kd.data.Views, which can be replayed; got "
            f"{type(views).__name__}. Under random augmentation the student's images "
            "would differ from the teacher's."
        )


def check_logits(teacher: BaseTeacher, inputs, taps: Sequence) -> None:
    """Check that the outputs which are cached are logits, not probabilities."""
    if getattr(teacher, "predicts", None) == VALUES:
        return
    for index, tap in {tap.of_member() for tap in taps if tap.is_output}:
        models = teacher.models if index is None else [teacher.models[index]]
        for model in models:
            heads.check_logits(model, "teacher", inputs, tap)


def check_shapes(shapes_of_taps: dict) -> None:
    """Check that each tap has one shape for all samples."""
    for tap, shape in shapes_of_taps.items():
        if None in shape:
            raise ValueError(
                "A cache needs one shape for all samples, but the tap "
                f"'{tap}' has the shape {shape}. Pad or resize the inputs to one size."
            )


def check_requests(contents: Contents, requests: Sequence[Request]) -> None:
    """Check that a cache has what terms need, at their temperatures."""
    wanted = dict.fromkeys(str(tap) for request in requests for tap in request.taps)
    missing = [tap for tap in wanted if tap not in contents.shapes]
    if missing:
        raise ValueError(
            f"The cache has {sorted(contents.shapes)}, but terms need {missing}. "
            "Build one with taps=(...) that names them."
        )
    cached = contents.made_of["temperature"]
    stored = contents.made_of.get("predicts", None if cached == "any" else CLASSES)
    for request in requests:
        compares = request.temperature is not None
        if compares and request.is_settled and request.predicts is None:
            _check_whole(contents, request)
        if stored and compares and request.predicts not in (None, stored):
            raise ValueError(
                f"The cache has predictions of {stored}, but the loss of term "
                f"'{request.term}' takes outputs for {request.predicts}. Build a cache "
                f"without top_k, of an ensemble with predicts='{request.predicts}'."
            )
        if cached != "any" and request.temperature not in (None, cached):
            is_scheduled = request.temperature == "scheduled"
            temperature = "a scheduled one" if is_scheduled else request.temperature
            raise ValueError(
                f"The cache has predictions at the temperature {cached:g}; the term "
                f"'{request.term}' compares at {temperature}. Pass temperature="
                f"{cached:g} to the loss, or build a cache at its temperature, or one "
                "without top_k."
            )


def _check_whole(contents: Contents, request: Request) -> None:
    """Check that a loss of raw logits gets those, which the largest classes are not."""
    for tap in request.taps:
        form = contents.forms[str(tap)]
        if tap.is_output and isinstance(form, TopK):
            raise ValueError(
                f"The term '{request.term}' compares logits as they are, but the cache "
                f"has the {form.k} largest probabilities of '{tap}' alone, whose logits are "
                "log-probabilities. Build a cache without top_k, or compare by "
                "kd.losses.SoftTarget or kd.losses.LogitRegression(centred=True). In a "
                "loss of your own that takes a softmax of the logits, set "
                "predicts = 'classes'."
            )


def check_made_of(cached: dict, passed: dict, folder) -> None:
    """Check that a cache was made of what is passed, by the fingerprints' names."""
    # Caches of earlier versions lack the connections.
    known = {"connections": passed["connections"], **cached}
    differing = [name for name, x in passed.items() if known.get(name) != x]
    if differing:
        details = "; ".join(
            f"{name}: cached {_short(cached.get(name))}, passed {_short(passed[name])}"
            for name in differing
        )
        raise ValueError(
            f"The cache in '{folder}' was not built with this {' and '.join(differing)} "
            f"({details}). Pass what it was built with, choose another folder, or remove "
            "this one to build it again."
        )


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:24] + "..."
