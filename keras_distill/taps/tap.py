"""What names a tensor inside a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import keras

LOGITS = "logits"
LABEL_GRADIENT, CLASS_GRADIENT = "label_gradient", "class_gradient"
MIRRORED_GRADIENT = "mirrored_label_gradient"
GRADIENTS = LABEL_GRADIENT, CLASS_GRADIENT, MIRRORED_GRADIENT


@keras.saving.register_keras_serializable(package="keras_distill")
@dataclasses.dataclass(frozen=True, order=True)
class Tap:
    """A tensor inside a model: what a layer gives, or what it is given.

    Args:
        path: names from the model down to the layer, joined by `/`, as in
            `"backbone/stack2"`; a part may be a layer's name, an attribute of a
            subclassed model or an index into a list attribute. `"logits"` is the
            model's output, `"logits/<name or index>"` one of several outputs.
            `"label_gradient"` is the gradient of the labels' cross-entropy by the
            input, `"class_gradient"` that of the logit of the teacher's first class;
            `"mirrored_label_gradient"` is the first for the image mirrored left to
            right, mirrored back, at one more pass through the model.
        call: which call of a shared layer within one forward pass, from 0.
        side: `"output"` or `"input"` of the layer. A layer that gives or takes
            several tensors is tapped at the first.

    Raises:
        ValueError: `call` is negative or `side` is neither input nor output.

    Example:
        >>> kd.Tap("backbone/stack2", side="input")
    """

    path: str
    call: int = 0
    side: str = "output"

    def __post_init__(self):
        """Check the arguments."""
        if not isinstance(self.path, str) or not self.path.strip("/"):
            raise ValueError(
                f"A tap's path is a layer path such as 'stack2'; got {self.path!r}."
            )
        if not isinstance(self.call, int) or self.call < 0:
            raise ValueError(
                f"A tap's call counts from 0 (0 is the first call); got {self.call!r}."
            )
        if self.side not in ("output", "input"):
            raise ValueError(f"A tap's side is 'output' or 'input'; got {self.side!r}.")

    def __str__(self) -> str:
        """Give the path, and what differs from the defaults."""
        call = f"[call {self.call}]" if self.call else ""
        return self.path + call + (" (input)" if self.side == "input" else "")

    @property
    def is_logits(self) -> bool:
        """Tell whether the tap is the model's output, or that of an ensemble's member."""
        first, *rest = self.path.split("/")
        return first == LOGITS or (first.isdecimal() and rest[:1] == [LOGITS])

    @property
    def is_gradient(self) -> bool:
        """Tell whether the tap is a gradient by the model's input."""
        return self.path in GRADIENTS

    def get_config(self) -> dict:
        """Give the arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> Tap:
        """Make a tap from its arguments."""
        return cls(**config)


def as_taps(taps: str | Tap | Iterable[str | Tap]) -> tuple[Tap, ...]:
    """Make a tuple of taps out of a path, a tap, or several of them.

    Raises:
        TypeError: it is something else.

    Example:
        >>> kd.taps.as_taps(["stack1", kd.Tap("stack2", side="input")])
    """
    if isinstance(taps, (str, Tap)):
        taps = (taps,)
    try:
        return tuple(tap if isinstance(tap, Tap) else Tap(tap) for tap in taps)
    except TypeError:
        raise TypeError(
            f"A tap is a layer path, a kd.Tap or a tuple of these; got {taps!r}."
        ) from None
