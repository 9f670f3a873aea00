"""How hard each part of the loss pulls while training."""

import keras

from keras_distill._backend.jax_state import sync_variables
from keras_distill.analysis.figures import new_figure
from keras_distill.distillers import Distiller
from keras_distill.distillers.balancing import batches_of
from keras_distill.distillers.part_gradients import LABELS, PartGradients, measure


class Pulls(keras.callbacks.Callback):
    """Log how hard each part of the loss pulls at the student, and against which others.

    Every so often the gradient of each part by the student's weights is measured on the
    first batches of `fit`, or on batches of your own, in the way of `kd.suggest_weights`;
    nothing of the training changes. At the end of an epoch the last measurement joins the
    logs, from which `History`, `CSVLogger` and, behind this callback, `TensorBoard`
    take it:

    - `pull/NAME`: the norm of the gradient of the part, times its weight;
    - `cosine/NAME`: the cosine between the gradients of the part and of the labels,
      below 0 where the part pulls against them.

    Args:
        every: `"epoch"` (default), or a number of steps.
        batches: tuples `(x, y)` or `(x, y, sample_weight)` to measure on, as a step takes
            them. Default: of arrays the first four batches, of other data the first one.

    Attributes:
        history: a list of dicts, one per measurement: `step`, the optimizer's, and the
            names above. Further calls of `fit` add to it.

    Raises:
        TypeError: as `fit` begins, the model is not a `kd.Distiller`.
        ValueError: `every` is neither, or, as `fit` begins, no batch can be read.

    Example:
        >>> pulls = kd.callbacks.Pulls()
        >>> distiller.fit(train, epochs=2, callbacks=[pulls])
        >>> pulls.plot().savefig("pulls.png")
    """

    def __init__(self, every: int | str = "epoch", *, batches=None):
        super().__init__()
        is_count = isinstance(every, int) and not isinstance(every, bool) and every > 0
        if every != "epoch" and not is_count:
            raise ValueError(
                f"every is 'epoch' or a number of steps above 0; got {every!r}."
            )
        self.every, self.batches = every, batches
        self.history = []

    def on_train_begin(self, logs=None):
        """Check the model, and find the batches to measure on."""
        if not isinstance(self.model, Distiller):
            raise TypeError(
                "Pulls measures the parts of a kd.Distiller; got a "
                f"{type(self.model).__name__}."
            )
        self.begin = self.batch = 0
        self.last = {}
        self.found = self.batches or batches_of(self.model)
        if not self.found:
            raise ValueError(
                "Pulls found no batch to measure on: the training data can be read only "
                "once. Pass batches=[(x, y)]."
            )
        self.found = [keras.utils.unpack_x_y_sample_weight(x) for x in self.found]

    def on_train_batch_end(self, batch, logs=None):
        """Measure, if it is time."""
        before, self.batch = self.batch, batch + 1
        if self.every == "epoch":
            return
        passed = (
            (self.begin + before) // self.every,
            (self.begin + batch + 1) // self.every,
        )
        if passed[0] != passed[1]:
            self._measure()

    def on_epoch_end(self, epoch, logs=None):
        """Measure, if it is time, and add the last measurement to the logs."""
        if self.every == "epoch":
            self._measure()
        self.begin, self.batch = self.begin + self.batch, 0
        if logs is not None:
            logs |= self.last

    def plot(self):
        """Plot pulls and cosines over the steps.

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: nothing was measured yet.

        Example:
            >>> pulls = kd.callbacks.Pulls()
            >>> distiller.fit(train, epochs=2, callbacks=[pulls])
            >>> pulls.plot().savefig("pulls.png")
        """
        if not self.history:
            raise ValueError(
                "Nothing was measured yet. Pass the callback to fit first."
            )
        figure, axes = new_figure(9, 3.4, 1, 2)
        steps = [row["step"] for row in self.history]
        for axis, kind in zip(axes[0], ("pull", "cosine"), strict=True):
            for name in (x for x in self.history[0] if x.startswith(f"{kind}/")):
                values = [row[name] for row in self.history]
                axis.plot(steps, values, marker=".", label=name.partition("/")[2])
            axis.set_xlabel("step")
            axis.legend()
        axes[0][0].set_ylabel("norm of the weighted gradient")
        axes[0][0].set_yscale("log")
        axes[0][1].set_ylabel("cosine to the labels' gradient")
        axes[0][1].axhline(0.0, color="gray", linewidth=0.8)
        return figure

    def _measure(self) -> None:
        sync_variables(self.model)
        found = measure(self.model, self.found)
        pulls = _pulls(self.model, found)
        self.last = {f"pull/{name}": x for name, x in pulls.items()}
        if LABELS in found.norms:
            names = (name for name in found.norms if name != LABELS)
            self.last |= {f"cosine/{name}": found.cosine(name) for name in names}
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.history.append({"step": step, **self.last})


def _pulls(distiller, found: PartGradients) -> dict[str, float]:
    """Return the norms of the gradients of the parts, times their weights at this step."""
    weights = {name: bound.weight for name, bound in distiller.terms.items()}
    weights[LABELS] = distiller.label_weight
    return {
        name: float(keras.ops.convert_to_numpy(weights[name])) * norm
        for name, norm in found.norms.items()
    }
