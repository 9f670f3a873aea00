"""The names in the logs: those of terms differ from all that Keras logs."""

import re
from collections import Counter
from collections.abc import Iterable

import keras


def compiled_names(metrics, output_names) -> set[str]:
    """Return the names under which Keras logs compiled metrics and losses.

    Args:
        metrics: what `compile` got as metrics, in any structure.
        output_names: of the student, or None.
    """
    names = {_name(metric) for metric in keras.tree.flatten(metrics)} - {None}
    outputs = list(output_names or ())
    of_outputs = {f"{output}_{name}" for output in outputs for name in names}
    if len(outputs) > 1:
        of_outputs |= {f"{output}_loss" for output in outputs}
    return names | of_outputs


def check_names(terms: Iterable[str], logged: Iterable[str]) -> None:
    """Check that no term has the name of something else in the logs.

    Args:
        terms: names of the terms.
        logged: names that Keras logs, of metrics and of outputs' losses.
    """
    twice = sorted(set(terms) & set(logged))
    if twice:
        raise ValueError(
            f"The terms {twice} have names under which Keras logs a metric or an output's "
            "loss, or which log_weights uses. Give them others: kd.Term(..., "
            "name='soft_accuracy')."
        )


def check_peers_names(names: Iterable[str]) -> None:
    """Check that the logs of peers, under the peers' names, have different names."""
    names = list(names)
    twice = [name for name, n in Counter([*names, "loss"]).items() if n > 1]
    twice += [name for name in names if name.startswith("val_")]
    if twice:
        raise ValueError(
            "The logs of peers begin with the peers' names, and these stand for several "
            f"things: {sorted(twice)}. Give the peers or their terms other names."
        )


def _name(metric) -> str | None:
    if metric is None or isinstance(metric, str):
        return metric
    name = getattr(metric, "name", None) or getattr(metric, "__name__", "")
    # As Keras does with the names of functions and classes.
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
