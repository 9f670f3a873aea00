"""A look now and then at whether the parts of the loss are still finite."""

from __future__ import annotations

import keras
import numpy as np

# Looking waits for the device, which each step would feel.
EVERY = 100


class Watching:
    """Stop a training whose loss is not finite any more, before anything is saved.

    A mean that is not finite stays so, so that a look now and then finds it: after 1, 2,
    4, ... and each hundred calls of the step, and at the end of an epoch; after each
    call where a callback saves by batches.
    """

    looks_always = False

    def watch(self, callbacks) -> None:
        """Find out how often to look.

        Args:
            callbacks: of `fit`.
        """
        found = getattr(callbacks, "callbacks", callbacks)
        saves = [getattr(x, "save_freq", "epoch") for x in keras.tree.flatten(found)]
        self.looks_always = any(each != "epoch" for each in saves)
        if isinstance(self.train_function, _Watched):
            self.train_function.calls = 0

    def make_train_function(self, force=False):
        """Make the step, which looks at its own logs now and then."""
        super().make_train_function(force)
        if not isinstance(self.train_function, _Watched):
            self.train_function = _Watched(self.train_function, self)

    def are_finite(self, logs, when: str) -> None:
        """Check the parts of the loss.

        Args:
            logs: of a step or an epoch.
            when: that was, for the error.

        Raises:
            ValueError: names the parts that are not finite.
        """
        bad = [
            name
            for name in self.part_names()
            if name in logs
            and not np.isfinite(keras.ops.convert_to_numpy(logs[name])).all()
        ]
        if bad:
            raise ValueError(
                f"Training stopped at {when}: {', '.join(bad)} "
                f"{'is' if len(bad) == 1 else 'are'} not finite. The logits or features "
                "behind it are not, or its weight is too large: lower the learning rate "
                "or the weight, clip gradients, or look at the data. Checkpoints from "
                "before are as they were."
            )


class _Watched:
    """A step that counts its calls."""

    def __init__(self, step, model):
        self.step, self.model, self.calls = step, model, 0

    def __call__(self, *arguments):
        found = self.step(*arguments)
        self.calls += 1
        early = self.calls < EVERY and self.calls & (self.calls - 1) == 0
        if early or self.calls % EVERY == 0 or self.model.looks_always:
            logs, *state = found if isinstance(found, tuple) else (found,)
            try:
                self.model.are_finite(logs, f"call {self.calls} of the step")
            except ValueError:
                _keep(self.model, *state)
                raise
        return found


def _keep(model, state=None) -> None:
    """Let a model have the state after a step, where JAX gave the one before away."""
    if state is None:
        return
    parts = "trainable", "non_trainable", "optimizer", "metrics"
    names = [f"{part}_variables" for part in parts]
    # Keras does so itself when the step is over.
    model._jax_state = dict(zip(names, state, strict=True))
    model._jax_state_synced = False
