"""Whether the parts of the loss and the weights are still finite, checked now and then."""

import keras
import numpy as np

from keras_distill._backend.finite import FiniteCheck
from keras_distill._backend.jax_state import keep_state, keep_state_before

# Reading the logs waits for the device, which is too slow for every step.
EVERY = 100


class WatchedStep:
    """A step whose logs and weights are checked, before a callback can save anything.

    What is not finite stays so, and is found by a check after 1, 2, 4, ... and
    every hundred calls of the step, and at the end of an epoch; after each call where a
    callback saves in the middle of an epoch. A gradient can destroy the weights while
    the loss of the same step, and that of rectified values after it, is finite.
    """

    def __init__(self, model, step):
        self.model, self.step, self.calls = model, step, 0
        variables = model.trainable_variables + model.non_trainable_variables
        self.weights = FiniteCheck(variables)

    def __call__(self, *arguments):
        """Take a step; raise if its logs or the weights after it are not finite."""
        try:
            result = self.step(*arguments)
        except (Exception, KeyboardInterrupt):
            keep_state_before(self.model, arguments)
            raise
        self.calls += 1
        early = self.calls < EVERY and self.calls & (self.calls - 1) == 0
        if early or self.calls % EVERY == 0 or self.model.plan.saves_by_batch:
            logs, *state = result if isinstance(result, tuple) else (result,)
            when = f"call {self.calls} of the step"
            try:
                check_finite(self.model, logs, when)
                check_weights(self.weights, when, *(x[0] + x[1] for x in state))
            except ValueError:
                if state:
                    keep_state(self.model, *state)
                raise
        return result


class StopAtNotFinite(keras.callbacks.Callback):
    """Stop at the end of an epoch in which a part of the loss or a weight was not finite.

    It stands in front of the user's callbacks, so that the last checkpoint stays good,
    and ignores batches, at which Keras would call it in another thread.
    """

    async_safe = True

    def on_epoch_end(self, epoch, logs=None):
        """Check the means of the epoch, and the weights at its end."""
        check_finite(self.model, logs or {}, f"epoch {epoch}")
        step = self.model.train_function
        if isinstance(step, WatchedStep):
            check_weights(step.weights, f"epoch {epoch}")
        self.model.check_scheduled()


def check_finite(model, logs: dict, when: str) -> None:
    """Raise if a part of the loss is not finite; `when` says of which moment the logs are."""
    values = {
        name: keras.ops.convert_to_numpy(logs[name])
        for name in model.part_names()
        if name in logs
    }
    bad = [name for name, value in values.items() if not np.isfinite(value).all()]
    if bad:
        infinite = [name for name in bad if np.isposinf(values[name]).any()]
        nan = [name for name in bad if np.isnan(values[name]).any()]
        causes = _infinite(infinite) + "".join(map(model.cause_of_nan, nan))
        raise ValueError(
            f"Training stopped at {when}: {', '.join(bad)} "
            f"{'is' if len(bad) == 1 else 'are'} not finite. The logits or features "
            "behind it are not, or its weight is too large: lower the learning rate "
            f"or the weight, clip gradients, or check the data. {causes}"
            "Earlier checkpoints are unchanged."
        )


def check_weights(check: FiniteCheck, when: str, values=None) -> None:
    """Raise if a weight or a moving statistic is not finite.

    Args:
        check: of the weights.
        when: the moment, for the error.
        values: of the weights, where the variables do not hold them.
    """
    if bad := check.not_finite(values):
        others = f" and {len(bad) - 1} more are" if len(bad) > 1 else " is"
        raise ValueError(
            f"Training stopped at {when}: the weight '{bad[0].path}'{others} not finite, "
            "though the losses are. A gradient was not finite, as that of a square root "
            "at 0, or the inputs are not, or are so large that their variance is not: "
            "check the data, lower the learning rate, or clip gradients. Earlier "
            "checkpoints are unchanged."
        )


def _infinite(names: list[str]) -> str:
    """Return why parts are infinite and not NaN, if any are."""
    if not names:
        return ""
    return (
        f"{', '.join(names)}: infinite, as a divergence is where a class has a logit of "
        "-inf on one side alone, and a label's loss where the label's class has. Set the "
        "same classes to -inf in student and teacher, or use -1e4 in place of -inf. "
    )


def saves_by_batch(callbacks) -> bool:
    """Whether a callback saves in the middle of an epoch."""
    callbacks = getattr(callbacks, "callbacks", callbacks)
    return any(getattr(x, "save_freq", "epoch") != "epoch" for x in callbacks)


def restart(step) -> None:
    """Reset the count of calls of a step that an earlier `fit` compiled."""
    if isinstance(step, WatchedStep):
        step.calls = 0
