"""Anil 2018: codistillation, with copies of the other that are renewed every few steps."""

import keras
import numpy as np
from pairs import BATCH, CONV, LOSS, optimizer

import keras_distill as kd
from claims import cifar
from claims.protocol import Claim, Protocol
from keras_distill import losses

IMAGES, TEST, WATCHED, EPOCHS, BURN_IN, TARGET = 10_000, 10_000, 2000, 20, 0.25, 55.0
REFRESH = {"alone": None, "copies of 10 steps": 10, "copies of 5 epochs": 390}
SETTINGS = {
    "images": IMAGES,
    "watched": WATCHED,
    "epochs": EPOCHS,
    "burn_in": BURN_IN,
    "target": TARGET,
    "refresh": REFRESH,
}
SMOKE = {"IMAGES": 128, "TEST": 128, "WATCHED": 100, "EPOCHS": 2}
ABOUT = f"""Small-scale stand-in: two plain networks of three convolutions (16, 32 and 64
filters) of other first weights and {IMAGES:,} images of a JPEG copy of CIFAR-10 instead of
ImageNet and Criteo. After {BURN_IN:.0%} of the steps on labels each also learns soft targets
(T = 1, weight 1) of a copy of the other, renewed every 10 steps or every five epochs, or
stays alone; both pass the same batches, in one process (`kd.MutualDistiller`). {EPOCHS}
epochs. {cifar.HOW} Measures: mean test accuracy of the two at the end, in %; steps until
their mean accuracy on the first {WATCHED:,} test images, after each epoch, reaches
{TARGET:g} % (all steps if it never does); test images on which the two predictions differ,
in %."""


class Watch(keras.callbacks.Callback):
    """Notes the mean accuracy of the peers after each epoch."""

    def __init__(self, peers, samples):
        super().__init__()
        self.peers, self.samples, self.accuracies = peers, samples, []

    def on_epoch_end(self, epoch, logs=None):
        """Evaluate."""
        wrong = [kd.analysis.wrong(peer, self.samples).mean() for peer in self.peers]
        self.accuracies.append(100 - 100 * float(np.mean(wrong)))


def trained(row: str, seed: int, data) -> tuple[list[keras.Model], Watch, int]:
    """Return both peers, their accuracies by epoch, and the number of steps of one."""
    peers = [CONV.build(1000 + 10 * seed + i) for i in range(2)]
    peers = [
        keras.Model(x.input, x.output, name=f"peer{i}") for i, x in enumerate(peers)
    ]
    of_epoch = len(data.train) // BATCH
    begin = round(BURN_IN * EPOCHS * of_epoch)
    together = 0.0 if row == "alone" else 1.0
    weight = keras.optimizers.schedules.PiecewiseConstantDecay([begin], [0.0, together])
    soft = kd.Term(losses.SoftTarget(1.0), weight=weight)
    model = kd.MutualDistiller(peers, [soft], refresh=REFRESH[row])
    model.compile(optimizer(EPOCHS, len(data.train)), LOSS)
    watch = Watch(peers, data.test[:WATCHED])
    batches = cifar.batches(data.train, seed)
    model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=[watch])
    return peers, watch, of_epoch


def train(row: str, seed: int, scratch) -> dict[str, float]:
    """Train both peers and evaluate them."""
    data = cifar.load(IMAGES, TEST)
    peers, watch, of_epoch = trained(row, seed, data)
    logits = [peer.predict(data.test.images, 500, verbose=0) for peer in peers]
    classes = [x.argmax(-1) for x in logits]
    reached = [i for i, x in enumerate(watch.accuracies, 1) if x >= TARGET]
    return {
        "accuracy": 100 * float(np.mean([x == data.test.labels for x in classes])),
        "steps": of_epoch * (reached[0] if reached else EPOCHS),
        "disagreement": 100 * float((classes[0] != classes[1]).mean()),
    }


FRESH, STALE = "copies of 10 steps", "copies of 5 epochs"
PROTOCOL = Protocol(
    name="anil2018_codistillation",
    title="Anil 2018: codistillation",
    about=ABOUT,
    rows=("alone", FRESH, STALE),
    train=train,
    claims=(
        Claim("Peers learn in fewer steps", FRESH, "alone", "steps", larger=False),
        Claim("Peers end better than alone", FRESH, "alone", "accuracy"),
        Claim("Copies may be old", STALE, FRESH, "accuracy", no_loss=True),
        Claim(
            "The predictions of two peers differ less",
            *(FRESH, "alone", "disagreement"),
            larger=False,
        ),
    ),
    settings=SETTINGS,
)
