"""The training of one specialist, and of several at once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import layers

from keras_distill.data import Samples
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term
from keras_distill.losses import SoftTarget
from keras_distill.schemes.progress import Ledger, Progress
from keras_distill.schemes.specialists.merged import Merged
from keras_distill.schemes.stages import with_fresh_optimizer


class SpecialistTraining:
    """A specialist, its samples, and how it is trained.

    Args:
        generalist: over all classes.
        group: its classes.
        drawn: what it sees, as `drawn_for` gives it.
        count: of all samples that there are.
        seed: of the order of samples and of random layers.
        settings: `soft_weight`, `temperature`, `epochs`, `batch_size`.
    """

    def __init__(self, generalist, group, drawn, count: int, seed: int, settings: dict):
        keras.utils.set_random_seed(seed)
        self.generalist, self.group, self.drawn = generalist, group, drawn
        self.count, self.seed, self.settings = count, seed, settings
        self.model = _specialist(generalist, group)

    def run(self, compiled: Mapping, backup, progress: Progress) -> None:
        """Train, and correct the dustbin's bias."""
        temperature, share = (self.settings[n] for n in ("temperature", "soft_weight"))
        merged = Merged(self.group, temperature)(self.generalist.output)
        teacher = keras.Model(self.generalist.inputs, merged, name="merged_generalist")
        soft = Term(SoftTarget(temperature), weight=share)
        trainer = Distiller(self.model, teacher, terms=[soft], label_weight=1.0 - share)
        ledger = Ledger(backup, {**self.settings, "group": self.group})
        progress.begin(f"Specialist of {self.group}", self.settings["epochs"])
        keras.utils.set_random_seed(self.seed)

        def train(kept):
            trainer.compile(**with_fresh_optimizer(compiled))
            return self._fit(trainer, [progress, *kept])

        ledger.once(0, trainer, train)
        progress.finish()
        self._correct_dustbin()

    def _fit(self, trainer, callbacks):
        return trainer.fit(
            self.drawn.images,
            self.drawn.labels,
            batch_size=self.settings["batch_size"],
            epochs=self.settings["epochs"],
            callbacks=callbacks,
            verbose=0,
        )

    def _correct_dustbin(self) -> None:
        """Raise its bias by the log of the odds that it has over those that it was shown."""
        others = int((self.drawn.labels == len(self.group)).sum())
        own = len(self.drawn) - others
        head = self.model.layers[-1]
        bias = np.array(head.get_weights()[1])
        bias[-1] += np.log((self.count - own) / own) - np.log(others / own)
        head.set_weights([head.get_weights()[0], bias])


def in_processes(
    processes: int,
    trainings: Sequence[SpecialistTraining],
    compiled: Mapping,
    backups: Sequence,
    progress: Progress,
) -> list[keras.Model]:
    """Run trainings side by side, each in a new process; give their models.

    Args:
        processes: at a time.
        trainings: made, not run.
        compiled: arguments of `compile`.
        backups: a folder each, or None.
        progress: moves by a training's epochs when it is done.
    """
    import concurrent.futures
    import multiprocessing

    config = {
        name: keras.saving.serialize_keras_object(value)
        for name, value in compiled.items()
    }
    progress.begin(f"{len(trainings)} specialists, {processes} at a time", 0)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        tasks = [
            _task(training, config, backup, os.path.join(folder, str(place)))
            for place, (training, backup) in enumerate(
                zip(trainings, backups, strict=True)
            )
        ]
        with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
            for place, file in enumerate(pool.map(_run_task, tasks)):
                trainings[place].model.load_weights(file)
                progress.move_to((place + 1) * trainings[place].settings["epochs"])
    return [training.model for training in trainings]


def _task(training, config, backup, folder) -> str:
    """Write down a training; give the file that says where all of it is."""
    os.makedirs(folder)
    training.generalist.save(os.path.join(folder, "generalist.keras"))
    np.savez(
        os.path.join(folder, "samples.npz"),
        images=training.drawn.images,
        labels=training.drawn.labels,
    )
    said = {"compiled": config, "backup": backup and str(backup), "folder": folder}
    said |= {name: getattr(training, name) for name in ("group", "seed", "count")}
    file = os.path.join(folder, "task.json")
    with open(file, "w") as opened:
        json.dump({**said, "settings": training.settings}, opened)
    return file


def _run_task(file: str) -> str:
    """Run a training that was written down; give the file of the model's weights."""
    with open(file) as opened:
        task = json.load(opened)
    generalist = keras.saving.load_model(
        os.path.join(task["folder"], "generalist.keras")
    )
    with np.load(os.path.join(task["folder"], "samples.npz")) as found:
        drawn = Samples(found["images"], found["labels"])
    given = (task[name] for name in ("count", "seed", "settings"))
    training = SpecialistTraining(generalist, task["group"], drawn, *given)
    compiled = keras.saving.deserialize_keras_object(task["compiled"])
    training.run(compiled, task["backup"], Progress(task["settings"]["epochs"], 0))
    weights = os.path.join(task["folder"], "specialist.weights.h5")
    training.model.save_weights(weights)
    return weights


def _specialist(generalist: keras.Model, group: list[int]) -> keras.Model:
    """Copy the generalist, with a last layer for a group and a dustbin."""
    head = generalist.layers[-1] if getattr(generalist, "inputs", None) else None
    linear = keras.activations.linear
    if not isinstance(head, layers.Dense) or head.activation is not linear:
        raise TypeError(
            "A generalist is a functional keras.Model whose last layer is a Dense without "
            f"activation; got {type(generalist).__name__} ending in {head}."
        )
    copy = keras.models.clone_model(generalist)
    copy.set_weights(generalist.get_weights())
    kernel, *bias = (np.array(w) for w in head.get_weights())
    bias = bias[0] if bias else np.zeros(kernel.shape[-1], kernel.dtype)
    rest = np.setdiff1d(np.arange(kernel.shape[-1]), group)
    # The mean logit of the others, raised to what n of them add up to.
    dustbin = kernel[:, rest].mean(1, keepdims=True)
    lifted = bias[rest].mean(keepdims=True) + np.log(len(rest))
    made = layers.Dense(len(group) + 1, name="specialist_logits")
    outputs = made(copy.layers[-1].input)
    made.set_weights(
        [
            np.concatenate([kernel[:, group], dustbin], 1),
            np.concatenate([bias[group], lifted]),
        ]
    )
    name = "specialist_" + "_".join(map(str, group))
    return keras.Model(copy.inputs, outputs, name=name[:60])


def drawn_for(samples: Samples, group: list[int], seed: int) -> Samples:
    """Take all samples of a group and as many others; number the classes anew."""
    own, rest = samples.only(group), samples.without(group)
    missing = sorted(set(group) - set(own.labels.tolist()))
    if missing or not len(rest):
        raise ValueError(
            f"A specialist needs samples of each of its classes and of others; classes "
            f"without any: {missing or 'all others'}."
        )
    rest = rest.few(min(len(own), len(rest)), seed)
    places = np.full(int(samples.labels.max()) + 1, len(group), "int32")
    places[group] = np.arange(len(group))
    labels = places[np.concatenate([own.labels, rest.labels])]
    return Samples(
        np.concatenate([own.images, rest.images]),
        labels,
        np.concatenate([own.ids, rest.ids]),
    )
