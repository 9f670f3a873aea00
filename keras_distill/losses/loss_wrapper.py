"""What losses around another loss of predictions have in common."""

from keras_distill.adapters.match import Match
from keras_distill.losses.distillation_loss import DistillationLoss


class LossWrapper(DistillationLoss):
    """A loss that changes predictions before another one compares them.

    A subclass has a `call` that passes what it changed to `self.loss.call`. What the
    other loss needs, schedules and asks of labels is the wrapper's too; its weight and
    its adapters are not.

    Args:
        loss: compares the logits of one softmax.
        prefix: of the default name, in front of the loss's.
        name: in the logs.
        reduction, dtype: as in `DistillationLoss`. Default: the loss's.

    Raises:
        TypeError: `loss` is not a `kd.losses.DistillationLoss`.
        ValueError: it compares other tensors.
    """

    def __init__(
        self, loss: DistillationLoss, *, prefix: str, name: str | None = None, **kwargs
    ):
        self.check_loss(loss)
        kwargs = {"reduction": loss.reduction, "dtype": loss.dtype, **kwargs}
        super().__init__(name=name or f"{prefix}_{loss.name}", **kwargs)
        self.loss, self.share = loss, loss.share
        self.needs, self.scheduled = loss.needs, loss.scheduled
        self.needs_one_class = loss.needs_one_class
        self.labels_are_classes = loss.labels_are_classes
        self.compares_samples = loss.compares_samples
        for argument in self.scheduled:
            setattr(self, argument, getattr(loss, argument))

    def check_loss(self, loss) -> None:
        """Check that a loss compares the logits of one softmax."""
        kind = type(self).__name__
        if not isinstance(loss, DistillationLoss):
            raise TypeError(
                "loss is a kd.losses.DistillationLoss that compares logits, as in "
                f"{kind}(kd.losses.SoftTarget(2.0)); got {loss!r}."
            )
        if loss.match is not Match.CLASSES or loss.predicts != "classes":
            raise ValueError(
                f"{kind} changes the logits of one softmax, and {type(loss).__name__} "
                "compares other tensors. Use a loss such as kd.losses.SoftTarget(2.0), or "
                "LogitRegression(centred=True) for logits."
            )

    def get_config(self) -> dict:
        """Return the arguments of the subclass; schedules are in the loss's."""
        return {
            k: x for k, x in super().get_config().items() if k not in self.scheduled
        }
