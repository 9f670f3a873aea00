"""Logits of the regions of a feature map, compared by any loss of predictions."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.adapters import AveragePool
from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss
from keras_distill.losses.loss_wrapper import LossWrapper
from keras_distill.taps.heads import Head

TAPS = "(kd.Tap('pool', side='input'), kd.Tap('logits', side='input'))"


@keras.saving.register_keras_serializable(package="keras_distill")
class ScaleDecoupledLogits(LossWrapper):
    r"""A loss of predictions, on the whole image and on regions of it.

    The logits of an image mix what its parts show. A last layer behind a mean over the
    locations of a map is as well a 1x1 convolution of the map, so that each region has
    logits of its own, which are compared too:

    .. math::

        \ell &= \frac{1}{R} \sum_r w_r \, \mathrm{loss}(z_{t,r}, z_{s,r})

        z_r &= W \, \mathrm{mean}_{j \in r} f_j + b

    over the R regions of all scales, s x s of them for a scale s; the scale 1 is the
    image as a whole. A region of which the teacher predicts the class that it predicts
    of the image weighs 1, another, which shows what else is there, `complementary`.

    Each side taps two tensors: the map that is averaged, `(B, H, W, C)`, and the input of
    the last layer, `(B, C)`, a `Dense` without activation. The sides may differ in size
    and channels. On the first batch of `fit` the mean of the map is compared with the
    input of the last layer.

    Recommended weight: that of the loss, with a warm-up over the first epochs for
    `DecoupledTarget` (the source's).

    Args:
        loss: compares the logits of one softmax, a sample by itself, with labels or
            without: `SoftTarget`, `ReverseSoftTarget`, `JensenShannon`,
            `DecoupledTarget`, `StandardizedLogits` of these, or a `Divergence` of your
            own.
        scales: numbers of regions a side, each 1 or more. Default 1, 2 and 4; the source
            has 1 and 2 where both nets are of one kind.
        complementary: weight of regions of another class, 0 or more. Default 2.
        name: in the logs. Default: `"scale_decoupled_"` and the loss's.
        reduction, dtype: as in `DistillationLoss`. Default: the loss's.

    Raises:
        TypeError: `loss` is not a `kd.losses.DistillationLoss`.
        ValueError: it compares other tensors, or samples with each other; `scales` are
            not different integers of 1 or more; `complementary` is negative or not
            finite; in a distiller, a tap is of another kind, or the classes differ.

    Example:
        >>> loss = kd.losses.ScaleDecoupledLogits(kd.losses.SoftTarget(4.0))
        >>> taps = kd.Tap("pool", side="input"), kd.Tap("logits", side="input")
        >>> kd.Term(loss, student=taps, teacher=taps)

    Source:
        Wei, Luo, Luo 2024, Scale decoupled distillation (SDD). The source's code weighs
        by whether both predictions are right or both wrong, which is the same where the
        teacher is right on the image.
    """

    match = Match.NOTHING
    taps = 2
    predicts = "classes"

    def __init__(
        self,
        loss: DistillationLoss,
        *,
        scales: Sequence[int] = (1, 2, 4),
        complementary: float = 2.0,
        name: str | None = None,
        **kwargs,
    ):
        super().__init__(loss, prefix="scale_decoupled", name=name, **kwargs)
        self.scales = _checked(scales)
        check_in(0, complementary=complementary)
        self.complementary = complementary
        self.needs = ("teacher_head", "student_head", *loss.needs)
        self.recommended_weight = loss.recommended_weight

    def check_loss(self, loss) -> None:
        """Check that a loss compares the logits of one softmax, sample by sample."""
        super().check_loss(loss)
        if loss.compares_samples or set(loss.needs) - {"labels"}:
            raise ValueError(
                "ScaleDecoupledLogits compares the logits of one softmax region by region, "
                f"and {type(loss).__name__} compares samples with each other, or needs "
                "more than labels. Use a loss such as kd.losses.SoftTarget(4.0)."
            )

    def joint_adapter(self, student, teacher):
        """Check the shapes of both sides' taps; there is no adapter."""
        for side, shapes in (("student", student), ("teacher", teacher)):
            _check_shapes(side, *shapes)

    def check_first_batch(self, student, teacher):
        """Check that the mean of a side's map is what enters its last layer."""
        for side, tensors in (("student", student), ("teacher", teacher)):
            maps, states = (np.float32(ops.convert_to_numpy(x)) for x in tensors)
            gap = np.abs(states - maps.mean((1, 2))).max()
            if not gap <= 0.02 * np.abs(states).max() + 1e-6:
                raise ValueError(
                    f"the mean over the locations of the {side}'s first tap is not the "
                    "second, which enters the last layer, so that regions have no logits. "
                    "Tap the map that is averaged, behind the last normalization and "
                    f"activation, as in student={TAPS}."
                )

    def call(self, teacher, student, *, teacher_head, student_head, **context):
        """Return `(B,)` for maps, `(B, H, W, C)`, and what enters the last layers."""
        z_t, z_s = (
            self._logits(Head(*head), *side)
            for head, side in ((teacher_head, teacher), (student_head, student))
        )
        count = z_s.shape[1]
        if "labels" in context:
            labels = ops.convert_to_tensor(context["labels"])
            context["labels"] = ops.repeat(labels, count, axis=0)
        rows = (ops.reshape(z, (-1, z.shape[-1])) for z in (z_t, z_s))
        values = ops.reshape(self.loss.call(*rows, **context), (-1, count))
        return ops.mean(self._weights(z_t, teacher, teacher_head) * values, axis=-1)

    def _logits(self, head: Head, maps, states):
        """Return the logits of all regions, `(B, R, K)`."""
        _check_shapes("model", maps.shape, states.shape)
        parts = [states[:, None] if s == 1 else _regions(maps, s) for s in self.scales]
        parts = ops.concatenate(parts, axis=1)
        count, width = parts.shape[1:]
        logits = head.logits(ops.reshape(parts, (-1, width)))
        return ops.reshape(ops.cast(logits, self.dtype), (-1, count, logits.shape[-1]))

    def _weights(self, logits, teacher, head):
        """Return the weights of the regions, `(B, R)`, by the teacher's predictions."""
        whole = ops.cast(Head(*head).logits(teacher[1]), self.dtype)
        whole = ops.argmax(whole, axis=-1)[:, None]
        agrees = ops.equal(ops.argmax(logits, axis=-1), whole)
        weights = ops.where(agrees, 1.0, self.complementary)
        return ops.stop_gradient(ops.cast(weights, logits.dtype))


def _regions(maps, scale: int):
    """Return the means over s x s regions, `(B, s * s, C)`, row by row."""
    pooled = AveragePool((scale, scale), name="regions").call(maps)
    return ops.reshape(pooled, (-1, scale * scale, maps.shape[-1]))


def _checked(scales) -> tuple[int, ...]:
    is_list = isinstance(scales, (list, tuple)) and len(scales) > 0
    if not is_list or len(set(scales)) < len(scales):
        raise ValueError(
            "scales is a tuple of different numbers of regions a side, as (1, 2, 4); got "
            f"{scales!r}."
        )
    check_integers(1, **{f"scales[{i}]": scale for i, scale in enumerate(scales)})
    return tuple(map(int, scales))


def _check_shapes(side: str, maps, states) -> None:
    if len(states) != 2 or len(maps) != 4 or states[-1] != maps[-1]:
        raise ValueError(
            "ScaleDecoupledLogits compares the map that is averaged, (B, H, W, C), and the "
            f"input of the last layer, (B, C); the {side}'s taps have the shapes "
            f"{tuple(maps)} and {tuple(states)}. Pass both in this order, as in "
            f"student={TAPS}."
        )
    if None in maps[1:3]:
        raise ValueError(
            f"ScaleDecoupledLogits needs maps of a known size; the {side}'s is "
            f"{tuple(maps)}. Fix the input size of the model."
        )
