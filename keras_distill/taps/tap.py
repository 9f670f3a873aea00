"""What names a tensor inside a model."""

import dataclasses
from collections.abc import Iterable

import keras

from keras_distill._backend.number_checks import check_integers

LOGITS = "logits"
LABEL_GRADIENT, CLASS_GRADIENT = "label_gradient", "class_gradient"
MIRRORED_GRADIENT = "mirrored_label_gradient"
GRADIENTS = LABEL_GRADIENT, CLASS_GRADIENT, MIRRORED_GRADIENT


@keras.saving.register_keras_serializable(package="keras_distill")
@dataclasses.dataclass(frozen=True, order=True)
class Tap:
    """A tensor inside a model: the output, input or attention scores of a layer.

    `Tap.output` is the output of the model, of which `"logits"` is the short form, and
    `Tap.input_gradient` a gradient with respect to the model's input. A layer that is
    itself called `"logits"` is `Tap.layer("logits")`.

    Args:
        path: names from the model down to the layer, joined by `/`, as in
            `"backbone/stack2"`; a part may be a layer's name, an attribute of a
            subclassed model or an index into a list attribute. In front of the path, the
            index of an ensemble's member.
        call: which call of a shared layer within one forward pass, from 0, in the order
            in which the model's author wrote the calls.
        side: `"output"` or `"input"` of the layer; or `"scores"`, the attention scores
            of a layer that attends once, after the softmax and before any dropout: `(B,
            T, N, S)`, how much each of T steps of the query takes of S keys in each of N
            heads. Steps come before heads, as in Q, K and V, so that masks and weights
            of steps fit. `"log_scores"` are their logarithms, which losses on logits
            take: `kd.losses.SoftTarget(1.0)` is then the divergence of the scores. A
            layer with several output or input tensors is tapped at the first.
        kind: `"layer"`, `"output"` or `"gradient"`, as the constructors set it. Default:
            `"output"` for `"logits"`, else `"layer"`.

    Raises:
        ValueError: `path` is empty, `call` is negative, or `side` or `kind` is unknown.

    Example:
        >>> kd.Tap("backbone/stack2", side="input")
        >>> kd.Tap("backbone/transformer_layers/1", side="scores")
    """

    path: str
    call: int = 0
    side: str = "output"
    kind: str | None = None

    def __post_init__(self):
        """Check the arguments."""
        if not isinstance(self.path, str) or not self.path.strip("/"):
            raise ValueError(
                f"A tap's path is a layer path such as 'stack2'; got {self.path!r}."
            )
        check_integers(0, call=self.call)
        if self.side not in ("output", "input", "scores", "log_scores"):
            raise ValueError(
                "A tap's side is 'output', 'input', or of attention 'scores' or "
                f"'log_scores'; got {self.side!r}."
            )
        if self.kind not in (None, "layer", "output", "gradient"):
            raise ValueError(
                "A tap's kind is 'layer', 'output' or 'gradient', as Tap.layer, "
                f"Tap.output and Tap.input_gradient set it; got {self.kind!r}."
            )
        short = self.kind is None and self.side == "output" and not self.call
        short = short and _is_output_path(self.path)
        # Not a field: a short form equals the tap that it stands for.
        object.__setattr__(self, "is_short_form", short)
        kind = self.kind or ("output" if short else "layer")
        object.__setattr__(self, "kind", kind)

    @classmethod
    def layer(cls, path: str, call: int = 0, side: str = "output") -> "Tap":
        """Tap a layer, whatever its name.

        Args:
            path, call, side: as in the class.

        Example:
            >>> kd.Tap.layer("logits")
        """
        return cls(path, call, side, "layer")

    @classmethod
    def output(cls, name: str | int | None = None, member: int | None = None) -> "Tap":
        """Tap the output of the model.

        Args:
            name: name or index of one of several outputs. Default: the only one.
            member: index of an ensemble's member. Default: the ensemble's prediction.

        Example:
            >>> kd.Tap.output("species")
        """
        parts = (member, LOGITS, name)
        return cls("/".join(str(x) for x in parts if x is not None), kind="output")

    @classmethod
    def input_gradient(cls, of: str = "labels", *, mirrored: bool = False) -> "Tap":
        """Tap a gradient with respect to the model's input.

        Args:
            of: `"labels"` (default), the cross-entropy of the labels, or
                `"first_class"`, the logit of the class that the teacher ranks first.
            mirrored: the gradient for the images mirrored left to right, mirrored back,
                at the cost of one more pass through the model. Default False.

        Raises:
            ValueError: another `of`, or a mirrored gradient of another than the labels.

        Example:
            >>> kd.Tap.input_gradient(mirrored=True)
        """
        if of not in ("labels", "first_class") or (mirrored and of != "labels"):
            raise ValueError(
                "An input gradient is of 'labels', which may be mirrored, or of "
                f"'first_class'; got of={of!r}, mirrored={mirrored}."
            )
        path = MIRRORED_GRADIENT if mirrored else LABEL_GRADIENT
        return cls(path if of == "labels" else CLASS_GRADIENT, kind="gradient")

    def __str__(self) -> str:
        """Return the path, and what differs from the defaults."""
        layer = " (layer)" if self._looks_like_an_output() else ""
        call, side = f"[call {self.call}]" if self.call else "", self.side
        return self.path + layer + call + ("" if side == "output" else f" ({side})")

    @property
    def is_output(self) -> bool:
        """Whether the tap is an output of the model or of an ensemble's member."""
        return self.kind == "output"

    @property
    def is_gradient(self) -> bool:
        """Whether the tap is a gradient with respect to the model's input."""
        return self.kind == "gradient"

    @property
    def is_scores(self) -> bool:
        """Whether the tap is of attention scores or their logarithms."""
        return self.side in ("scores", "log_scores")

    @property
    def needs_labels(self) -> bool:
        """Whether the tap is a gradient of the cross-entropy of the labels."""
        return self.is_gradient and self.path != CLASS_GRADIENT

    @property
    def output_name(self) -> str:
        """The name or index of one of several outputs; empty for the only one."""
        return self.path.partition(LOGITS)[2].lstrip("/") if self.is_output else ""

    def of_member(self) -> "tuple[int | None, Tap]":
        """Split off the index of an ensemble's member, None if the path has none."""
        index, _, path = self.path.partition("/")
        if not path or not index.isdecimal():
            return None, self
        kind = None if self.is_short_form else self.kind
        return int(index), dataclasses.replace(self, path=path, kind=kind)

    def in_member(self, index: int) -> "Tap":
        """Return the tap of the same tensor in an ensemble's member."""
        return dataclasses.replace(self, path=f"{index}/{self.path}")

    def get_config(self) -> dict:
        """Return the arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Tap":
        """Create a tap from its arguments, also those written by version 0.1."""
        if "kind" not in config and config["path"] in GRADIENTS:
            config = {**config, "kind": "gradient"}
        return cls(**config)

    def _looks_like_an_output(self) -> bool:
        return self.kind == "layer" and _is_output_path(self.path)


def as_taps(taps: str | Tap | Iterable[str | Tap]) -> "tuple[Tap, ...]":
    """Return a tuple of taps from a path, a tap, or several of them.

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


def _is_output_path(path: str) -> bool:
    first, *rest = path.split("/")
    return first == LOGITS or (first.isdecimal() and rest[:1] == [LOGITS])
