"""Checks of a term's adapters, before the first step."""

from collections.abc import Iterable, Sequence

import keras


def check_adapters(name: str, adapters: Sequence, count: int, several: bool) -> None:
    """Check each adapter of a term."""
    if len(adapters) != count:
        raise ValueError(
            f"Term '{name}' has {count} tap(s) per side, but {len(adapters)} adapters."
        )
    for adapter in adapters:
        if not (
            adapter is None or adapter == "auto" or isinstance(adapter, keras.Layer)
        ):
            raise TypeError(
                f"The adapter of term '{name}' must be 'auto', None or a "
                f"keras.layers.Layer; got {adapter!r}."
            )
    layers = [adapter for adapter in adapters if isinstance(adapter, keras.Layer)]
    if count > 1 and layers and not several:
        raise ValueError(
            f"Term '{name}' compares {count} layers, and one adapter layer can't serve "
            "each: pass a tuple of adapters."
        )


def check_teacher_adapters(name: str, adapters: Sequence, taps: Sequence) -> None:
    """Check the layers given for the teacher's side of a term."""
    if len(adapters) != len(taps):
        raise ValueError(
            f"Term '{name}' has {len(taps)} tap(s) of the teacher, but {len(adapters)} "
            "teacher_adapter. Pass one for each tap, in a tuple if there are several."
        )
    for adapter in adapters:
        if not (adapter is None or isinstance(adapter, keras.Layer)):
            raise TypeError(
                f"The teacher_adapter of term '{name}' must be None or a "
                f"keras.layers.Layer; got {adapter!r}."
            )


def check_frozen(name: str, adapters: Iterable) -> None:
    """Check that layers on the teacher's side, which nothing trains, are not to be."""
    for adapter in adapters:
        if adapter is not None and adapter.trainable_weights:
            raise ValueError(
                f"the teacher_adapter '{adapter.name}' has trainable weights, but the loss "
                f"of term '{name}' does not train the teacher's side. Set "
                "trainable = False once it is trained, or use a layer without weights."
            )


def check_same_shapes(built: dict, teacher: dict, sizes: bool = True) -> None:
    """Check that another teacher fits the adapters that exist.

    Args:
        built: shapes of the taps, by the tap's text, that the adapters were built for.
        teacher: shapes of this teacher's.
        sizes: whether lengths, heights and widths must agree too; those of a batch may
            differ from those of another.
    """
    for tap, shape in built.items():
        agree = len(teacher[tap]) == len(shape) and teacher[tap][-1] == shape[-1]
        if not agree or (sizes and list(teacher[tap]) != list(shape)):
            raise ValueError(
                f"The distiller was built for a teacher whose '{tap}' has the shape "
                f"{shape}; this one's is {teacher[tap]}. Pass a teacher of the same "
                "architecture, or create a new Distiller."
            )


def check_prepared(terms: Iterable, prepared: Sequence = ()) -> None:
    """Check that the layers which losses take as trained were trained, or will be."""
    for term in terms:
        for layer in term.loss.prerequisites():
            if layer.trainable and not any(layer is x for x in prepared):
                raise ValueError(
                    f"The {type(layer).__name__} of term '{term.name}' was not trained: "
                    "its output would be meaningless. Call its train_on(teacher, tap, "
                    "images) first, or begin with a kd.ParaphraserStage."
                )
