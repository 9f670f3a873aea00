"""Copies of models that follow the models' weights during training."""

import itertools
import re
from collections.abc import Sequence

import keras
from keras import ops

from keras_distill._backend.keras_layers import Untracked
from keras_distill.data.preprocessing import carry_preprocessing


class Copies(keras.Layer):
    """Copies of built models, in a layer that is saved and restored with its owner."""

    def __init__(self, sources: Sequence[keras.Model], name: str = "copies"):
        super().__init__(name=name, trainable=False, autocast=False)
        for source in sources:
            if not source.built:
                raise ValueError(
                    f"'{source.name}' is not built, so it can't be copied. Call it on "
                    "one batch first."
                )
        self.sources = Untracked(list(sources))
        self.models = [_copy(source) for source in sources]
        # Counted here, as each optimizer starts at 0.
        self.steps = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int",
            trainable=False,
            name="steps",
            aggregation="only_first_replica",
        )
        self.built = True

    def renew(self, when) -> None:
        """Assign the sources' weights where a boolean says so."""
        for variable, source in self._variables():
            variable.assign(ops.where(when, source.value, variable.value))

    def average(self, decay: float) -> None:
        """Move towards the sources' weights by `1 - decay`, further in the first steps."""
        step = ops.cast(self.steps, "float32")
        decay = ops.minimum(decay, (1.0 + step) / (10.0 + step))
        self.steps.assign_add(1)
        for variable, source in self._variables():
            if keras.backend.is_float_dtype(variable.dtype):
                variable.assign(_mixed(variable.value, source.value, decay))
            else:
                variable.assign(source.value)

    def _variables(self):
        for model, source in zip(self.models, self.sources.value, strict=True):
            yield from zip(model.variables, source.variables, strict=True)


def _mixed(mean, new, decay):
    """Return `decay * mean + (1 - decay) * new`, computed in float32 or float64."""
    wide = keras.backend.result_type(mean.dtype, "float32")
    kept = ops.cast(decay, wide)
    mixed = kept * ops.cast(mean, wide) + (1 - kept) * ops.cast(new, wide)
    return ops.cast(mixed, mean.dtype)


def _copy(source):
    copy = _clone(source)
    copy.set_weights(source.get_weights())
    copy.trainable = False
    return carry_preprocessing(source, copy)


def _clone(source):
    """Return a model with variables like the source's, in their order.

    Keras's default clones a layer twice that a model shares with a model inside it, as
    tasks of keras_hub share the embedding of their backbone; other ways may change the
    order of variables, whose paths are compared for that.
    """
    reasons = []
    for make, outline in (
        (_flat, _shapes),
        (_recursive, _places),
        (_from_config, _places),
    ):
        try:
            copy = make(source)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            reasons.append(str(error))
            continue
        if not copy.built:
            copy.build_from_config(source.get_build_config())
        if outline(copy) == outline(source):
            return copy
        reasons.append(
            f"{len(copy.variables)} variables for its {len(source.variables)}, or in "
            "another order"
        )
    raise ValueError(
        f"'{source.name}' can't be copied. keras.models.clone_model gives: {reasons[0]}. "
        "With recursive=True, and by get_config and from_config of its class: "
        f"{'; '.join(reasons[1:])}. Let its layers return whole configurations, and share "
        "none with models inside it."
    )


def _flat(source):
    return keras.models.clone_model(source)


def _recursive(source):
    return keras.models.clone_model(source, recursive=True)


def _from_config(source):
    return type(source).from_config(source.get_config())


def _shapes(model) -> list[tuple]:
    return [tuple(variable.shape) for variable in model.variables]


def _places(model) -> list[tuple]:
    """Return path and shape of each variable, paths without Keras's running numbers.

    A number is replaced by its rank among those of its name.
    """
    paths = [
        [re.fullmatch(r"(.*?)_?(\d*)", part).groups() for part in path.split("/")]
        for path in (variable.path for variable in model.variables)
    ]
    numbers = {}
    for name, number in itertools.chain(*paths):
        numbers.setdefault(name, set()).add(int(number or 0))
    ranks = {name: sorted(found) for name, found in numbers.items()}
    places = [
        tuple((name, ranks[name].index(int(number or 0))) for name, number in path)
        for path in paths
    ]
    return list(zip(places, _shapes(model), strict=True))
