"""Suggestions of weights with which terms pull as hard as the labels."""

from collections.abc import Mapping

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill._backend.number_checks import check_in, check_integers
from keras_distill.analysis.figures import new_figure
from keras_distill.analysis.table import table
from keras_distill.analysis.term_lines import line
from keras_distill.data.first_batches import first_batches
from keras_distill.data.pipeline import prepared_batch, weighted_inputs
from keras_distill.data.preparation import preparation_of
from keras_distill.distillers import Distiller, Term
from keras_distill.distillers.balancing import balanced_weights, reference
from keras_distill.distillers.part_gradients import PartGradients, measure
from keras_distill.losses.schedules import BALANCED, ScaledSchedule, at_step, peak


class SuggestedWeights(dict):
    """Weights by the names of terms; printed, a table and lines for `terms=[...]`.

    Args:
        weights: a number for each term, or the schedule that its term had, scaled.
        terms: of the distiller, by name.
        gradients: the values, norms and cosines that were measured.
        label_weight: at which the labels pull.
        against: name of the part that the terms were balanced against.

    Example:
        >>> weights = kd.suggest_weights(distiller, train)
        >>> kd.Term(kd.losses.Hint(), "stack3", "stack3", weight=weights["hint"])
    """

    def __init__(
        self,
        weights: Mapping[str, float | LearningRateSchedule],
        terms: Mapping[str, Term],
        *,
        gradients: PartGradients,
        label_weight: float,
        against: str,
    ):
        super().__init__(weights)
        self.terms, self.gradients = dict(terms), gradients
        self.label_weight, self.against = label_weight, against

    def __str__(self) -> str:
        """Return the table and the lines."""
        lines = [line(term, self[name]) for name, term in self.terms.items()]
        return "\n".join([table(self.rows()), "", *lines])

    __repr__ = __str__

    def rows(self) -> list[dict]:
        """Return the rows of the table, one for each part of the loss."""
        found = self.gradients
        return [
            {
                "part": name,
                "value": found.values[name],
                "gradient": found.norms[name],
                f"cosine to {self.against}": found.cosine(name, self.against),
                "weight": self._weight(name),
                "suggested": _number(self.get(name)),
            }
            for name in found.norms
        ]

    def plot(self):
        """Plot how hard each part pulls at its suggested weight, and the angles.

        Returns:
            A matplotlib figure: bars of the norms of the weighted gradients, and a grid
            of the cosines between parts, -1 where two pull against each other.

        Raises:
            ImportError: matplotlib is not installed.

        Example:
            >>> kd.suggest_weights(distiller, train).plot().savefig("pulls.png")
        """
        found, names = self.gradients, list(self.gradients.norms)
        figure, ((left, right),) = new_figure(9, 1.6 + 0.4 * len(names), 1, 2)
        pulls = [
            found.norms[name] * _number(self.get(name, self._weight(name)))
            for name in names
        ]
        left.barh(names, pulls)
        left.invert_yaxis()
        left.set_xlabel("norm of the weighted gradient")
        grid = [[found.cosines[a, b] for b in names] for a in names]
        image = right.imshow(grid, vmin=-1, vmax=1, cmap="RdBu")
        right.set_xticks(range(len(names)), names, rotation=45, ha="right")
        right.set_yticks(range(len(names)), names)
        figure.colorbar(image, ax=right, label="cosine of two gradients")
        return figure

    def _weight(self, name: str) -> float | None:
        if name not in self.terms:
            return self.label_weight
        weight = self.terms[name].weight
        return None if weight == BALANCED else _number(weight)


def suggest_weights(
    distiller: Distiller,
    data,
    *,
    share: float | Mapping[str, float] = 1.0,
    batches: int = 4,
    batch_size: int = 32,
) -> SuggestedWeights:
    r"""Suggest weights with which each term pulls as hard at the student as the labels.

    What a weight means depends on the sizes of the maps, on the number of classes and on
    the loss's form: 1000 is the published weight of attention maps, and fifty times too
    large for small images. Measured is the gradient of each part of the loss by the
    student's own weights, over a few batches, with the student in training form; nothing
    is moved. The suggested weight is

    .. math::

        w = \mathrm{share} \cdot s \cdot \lambda \,
            \frac{\lVert g_{\mathrm{label}} \rVert}{\lVert g_{\mathrm{term}} \rVert}

    with lambda, the `label_weight`; s, the loss's own `share`, 1 but for label smoothing
    and `Contrastive`, which have 0.3; and means of the norms of the gradients g over the
    batches. Without a loss of labels the first term keeps its weight, and the others are
    balanced against it. A weight that is a schedule keeps its shape: its largest value
    becomes the suggested weight.

    `kd.Term(..., weight="balanced")` measures as `fit` begins.

    Args:
        distiller: a compiled `Distiller` or `SelfDistiller`, whose student has the
            weights that training starts from.
        data: as `fit` takes them: a `tf.data.Dataset`, a `PyDataset` or another iterable
            of batches; or arrays `(x, y)`.
        share: how many times as hard as the labels a term pulls, as a factor of its loss's
            own share; a number, or one by the name of a term, 1 for those left out.
            Default 1. Terms on features may want more: search it on held-out data.
        batches: to average over. Default 4.
        batch_size: of arrays. Default 32.

    Returns:
        The weights, a dict; print it for a table of values, norms and cosines, and for
        lines to paste into `terms`.

    Raises:
        TypeError: not a `Distiller`.
        ValueError: the distiller is not compiled or has no terms, there are no data, or a
            part has no gradient by the student's weights.

    Example:
        >>> print(kd.suggest_weights(distiller, train))
        | part        |  value | gradient | cosine to label_loss | weight | suggested |
        ...
        kd.Term(kd.losses.Hint(), "stack3", "stack3", weight=...),
    """
    if not isinstance(distiller, Distiller):
        raise TypeError(
            "Weights are suggested for a kd.Distiller or kd.SelfDistiller, which has one "
            f"student; got a {type(distiller).__name__}."
        )
    if not distiller.compiled or not distiller.terms:
        raise ValueError(
            "Expected a compiled distiller with terms: call compile(optimizer, loss) first."
        )
    check_integers(1, batches=batches, batch_size=batch_size)
    shares = _shares(distiller, share)
    found = measure(distiller, _checked_batches(distiller, data, batches, batch_size))
    against, _ = reference(distiller, found)
    wanted = {name: x for name, x in shares.items() if name != against}
    numbers = balanced_weights(distiller, found, wanted)
    terms = {name: bound.term for name, bound in distiller.terms.items()}
    if against in terms:
        weight, loss = terms[against].weight, terms[against].loss
        numbers[against] = loss.recommended_weight if weight == BALANCED else weight
    weights = {
        name: numbers[name]
        if name == against
        else _scaled(name, term.weight, numbers[name])
        for name, term in terms.items()
    }
    step = distiller.optimizer.iterations
    return SuggestedWeights(
        weights,
        terms,
        gradients=found,
        label_weight=_number(at_step(distiller.label_source, step)),
        against=against,
    )


def _shares(distiller, share) -> dict[str, float]:
    if not isinstance(share, Mapping):
        share = dict.fromkeys(distiller.terms, share)
    if unknown := sorted(set(share) - set(distiller.terms)):
        raise ValueError(
            f"share names {', '.join(unknown)}; the terms are {list(distiller.terms)}."
        )
    check_in(0, **{f"share['{name}']": value for name, value in share.items()})
    return {
        name: float(share.get(name, 1.0)) * bound.term.loss.share
        for name, bound in distiller.terms.items()
    }


def _checked_batches(distiller, data, count: int, batch_size: int) -> list[tuple]:
    """Return the first batches as a step takes them, checked as `fit` checks them."""
    prepare = preparation_of(distiller.entry, training=True, teach=True)
    ready = []
    for batch in first_batches(data, count, batch_size):
        if prepare is not None:
            batch = keras.utils.unpack_x_y_sample_weight(prepared_batch(batch, prepare))
        x, y, weight = batch
        inputs, weight = weighted_inputs(x, y, weight)
        ready.append((inputs, y, weight))
    distiller.check_data(ready[0])
    distiller.check_before_step(ready[0])
    return ready


def _scaled(name: str, weight, number: float):
    if not isinstance(weight, LearningRateSchedule):
        return number
    highest = peak(weight)
    if highest <= 0:
        raise ValueError(
            f"The weight of term '{name}' is a schedule that never exceeds 0, so that no "
            "factor balances it. Pass a schedule with values above 0, or a number."
        )
    return ScaledSchedule(weight, number / highest)


def _number(weight) -> float | None:
    if weight is None:
        return None
    if isinstance(weight, LearningRateSchedule):
        return peak(weight)
    return float(keras.ops.convert_to_numpy(weight))
