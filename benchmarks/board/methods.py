"""The rows of the board: what the student learns beside the labels.

One rule for all: labels have weight 1, and each term `weight="balanced"`, so that it
pulls as hard as the labels as the training begins, times the loss's own `share`. Nothing
is tuned for a method on these images, and all parts are learned together, also where a
paper trains stages. One row has no labels, as its student predicts by the teacher's last
layer: SimKD, with the weight of its paper.
"""

import dataclasses
import itertools
from collections.abc import Callable

import keras
from pairs import optimizer, rate

import keras_distill as kd
from keras_distill import losses, targets

BALANCED = "balanced"
PARAPHRASED, PARAPHRASER_EPOCHS = 10_000, 5


@dataclasses.dataclass(frozen=True)
class Row:
    """What a row trains, and how.

    Args:
        student: to train, evaluate and ship.
        terms: what it learns from the teacher; none for the student alone.
        label_weight: of the labels. Default 1.
        optimizer: from numbers of epochs and images. Default: that of all rows.
    """

    student: keras.Model
    terms: list[kd.Term]
    label_weight: float = 1.0
    optimizer: Callable = optimizer


def term(loss, taps=None, **arguments) -> kd.Term:
    """Return a balanced term, on the outputs or a pair of taps."""
    return kd.Term(loss, *(taps or ()), weight=BALANCED, **arguments)


def on_stages(loss, pair, last: bool = False) -> list[kd.Term]:
    """Return a term for each pair of stages, or for the last."""
    pairs = pair.stages[-1:] if last else pair.stages
    return [term(loss, taps, name=f"{loss.name}_{taps[0]}") for taps in pairs]


def logits(loss) -> Callable:
    """Return a row that compares logits."""

    def terms(pair, samples):
        return [term(loss)]

    return terms


def stages(loss, last: bool = False) -> Callable:
    """Return a row that compares the ends of stages."""

    def terms(pair, samples):
        return on_stages(loss, pair, last)

    return terms


def pooled(*of_pool) -> Callable:
    """Return a row that compares the vectors after pooling."""

    def terms(pair, samples):
        return [term(loss, ("pool", "pool")) for loss in of_pool]

    return terms


def flows(pair, samples):
    """Return FSP's terms, between the ends of stages that follow each other."""
    ends = [tap for tap, _ in pair.stages]
    loss = losses.FlowMatrix()
    return [
        term(loss, (between, between), name=f"{loss.name}_{between[-1]}")
        for between in itertools.pairwise(ends)
    ]


def contrastive(pair, samples):
    """Return CRD's term."""
    return [term(losses.Contrastive(len(samples), negatives=4096), ("pool", "pool"))]


def review(pair, samples):
    """Return ReviewKD's term on all stages at once."""
    students, teachers = zip(*pair.stages, strict=True)
    return [term(losses.Review(len(students)), (students, teachers))]


def regions(pair, samples):
    """Return SDD's term, on the map that is averaged and the last layer's input."""
    taps = kd.Tap("pool", side="input"), kd.Tap("logits", side="input")
    loss = losses.ScaleDecoupledLogits(losses.SoftTarget(4.0))
    return [term(loss, (taps, taps))]


def before_activation(loss) -> Callable:
    """Return a row that compares what goes into the last activation of each stage."""

    def terms(pair, samples):
        sides = [tuple(kd.Tap(x, side="input") for x in taps) for taps in pair.stages]
        return [term(loss, taps, name=f"{loss.name}_{taps[0].path}") for taps in sides]

    return terms


def both(*rows) -> Callable:
    """Return a row of several rows' terms."""

    def terms(pair, samples):
        return [found for row in rows for found in row(pair, samples)]

    return terms


def suggested(student, teacher, pair, samples) -> Row:
    """Return the row of the terms that are suggested for the pair."""
    return Row(student, list(kd.suggest_terms(student, teacher)))


def reused(student, teacher, pair, samples) -> Row:
    """Return SimKD's row."""
    student, features = kd.reuse_teacher_head(student, teacher)
    return Row(student, [features], label_weight=0.0)


def factors(student, teacher, pair, samples) -> Row:
    """Return FT's row, after its paraphraser has learned the teacher's last stage."""
    _, end = last = pair.stages[-1]
    paraphraser = kd.adapters.Paraphraser(0.5)
    images = samples.images[:PARAPHRASED]
    paraphraser.train_on(teacher, end, images, epochs=PARAPHRASER_EPOCHS, verbose=0)
    return Row(student, [term(losses.FactorTransfer(paraphraser), last)])


def momenta_apart(epochs: int, images: int) -> keras.optimizers.Optimizer:
    """Return DOT's optimizer: that of all rows, with a momentum of labels and of terms."""
    return kd.optimizers.DistillationOrientedSGD(rate(epochs, images), nesterov=True)


KD = logits(losses.SoftTarget(4.0))
AT = stages(losses.AttentionMap())
HINT = stages(losses.Hint(), last=True)
SP = stages(losses.SimilarityMatrix(), last=True)
# In the order of their worth.
METHODS = {
    "alone": None,
    "KD": KD,
    "AT": AT,
    "FitNet": HINT,
    "FSP": flows,
    "RKD": pooled(losses.DistanceRelation(), losses.AngleRelation()),
    "DKD": logits(losses.DecoupledTarget(4.0)),
    "DIST": logits(losses.PredictionCorrelation(4.0)),
    "logit standardisation": logits(losses.StandardizedLogits(losses.SoftTarget(2.0))),
    "CRD": contrastive,
    "ReviewKD": review,
    "SP": SP,
    "PKT": pooled(losses.ConditionalProbability()),
    "VID": stages(losses.VariationalInformation()),
    "NST": stages(losses.NeuronSelectivity(), last=True),
    "AB": before_activation(losses.ActivationBoundary()),
    "FT": None,
    "OFD": before_activation(losses.MarginActivation()),
    "SimKD": None,
    "MLKD": logits(losses.MultiLevelLogits()),
    "TTM": logits(losses.SoftTarget(1.0, target=targets.PowerTransform())),
    "suggested": None,
    "KD+AT": both(KD, AT),
    "KD+Hint": both(KD, HINT),
    "KD+SP": both(KD, SP),
    "F-ActT": stages(losses.FullActivation()),
    "WTTM": logits(losses.PowerWeightedTarget()),
    "WSLD": logits(losses.WeightedSoftTarget()),
    "ICKD": stages(losses.ChannelCorrelation(), last=True),
    "SRD": pooled(losses.NormalizedHint()),
    "VkD": pooled(losses.OrthogonalHint()),
    "SDD": regions,
    "CC": pooled(losses.CorrelationCongruence()),
    "DOT": KD,
}
# Rows that are made of both models.
OF_MODELS = {"suggested": suggested, "SimKD": reused, "FT": factors}
OPTIMIZERS = {"DOT": momenta_apart}
# What is read from a cache, and the rows that compare nothing else of the teacher.
CACHED = ("logits", "pool")
FROM_CACHE = (
    "KD",
    "RKD",
    "DKD",
    "DIST",
    "logit standardisation",
    "CRD",
    "PKT",
    "MLKD",
    "TTM",
    "WTTM",
    "WSLD",
    "SRD",
    "VkD",
    "CC",
    "DOT",
)


def row_of(method: str, pair, models, samples) -> Row:
    """Return what a row trains.

    Args:
        method: name of the row.
        pair: of networks.
        models: the student and the teacher.
        samples: of the student.
    """
    if method in OF_MODELS:
        return OF_MODELS[method](*models, pair, samples)
    make = METHODS[method]
    terms = [] if make is None else make(pair, samples)
    return Row(models[0], terms, optimizer=OPTIMIZERS.get(method, optimizer))
