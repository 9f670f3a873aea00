"""The training of one specialist, and of several in parallel."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import layers

from keras_distill.data import Samples
from keras_distill.data.preprocessing import preprocessing_of
from keras_distill.distillers.distiller import Distiller
from keras_distill.distillers.term import Term
from keras_distill.losses import SoftTarget
from keras_distill.schemes.progress import Ledger, Progress
from keras_distill.schemes.seeds import set_seed
from keras_distill.schemes.specialists.merged import Merged
from keras_distill.schemes.stages import with_fresh_optimizer


@dataclasses.dataclass(eq=False)
class SpecialistTraining:
    """A specialist's training, on samples drawn from a data set of `count` samples."""

    generalist: keras.Model
    group: list[int]
    drawn: Samples
    count: int
    seed: int
    settings: dict

    def __post_init__(self):
        """Create the specialist."""
        set_seed(self.seed, [self.generalist])
        self.model = _create_specialist(self.generalist, self.group)

    def __reduce__(self):
        """Pickle the arguments; the specialist is created again from its seed."""
        names = (field.name for field in dataclasses.fields(self))
        return SpecialistTraining, tuple(getattr(self, name) for name in names)

    def run(self, compiled: Mapping, backup, progress: Progress) -> None:
        """Train, and correct the dustbin's bias."""
        temperature, weight = (self.settings[n] for n in ("temperature", "soft_weight"))
        merged = Merged(self.group, temperature)(self.generalist.output)
        teacher = keras.Model(self.generalist.inputs, merged, name="merged_generalist")
        soft = Term(SoftTarget(temperature), weight=weight)
        trainer = Distiller(self.model, teacher, terms=[soft], label_weight=1 - weight)
        plan = {**self.settings, "group": self.group, "seed": self.seed}
        ledger = Ledger(backup, plan)
        set_seed(self.seed, [self.generalist])

        def train(callbacks):
            trainer.compile(**with_fresh_optimizer(compiled))
            return self._fit(trainer, [progress, *callbacks])

        with progress.training(f"Specialist of {self.group}", self.settings["epochs"]):
            ledger.once(0, train)
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
        """Add the log of the ratio of the true odds to those in the training samples."""
        others = int((self.drawn.labels == len(self.group)).sum())
        inside = len(self.drawn) - others
        head = self.model.layers[-1]
        bias = np.array(head.get_weights()[1])
        bias[-1] += np.log((self.count - inside) / inside) - np.log(others / inside)
        head.set_weights([head.get_weights()[0], bias])


def run_in_processes(
    processes: int,
    trainings: Sequence[SpecialistTraining],
    compiled: Mapping,
    backups: Sequence,
    progress: Progress,
) -> list[keras.Model]:
    """Run trainings in parallel, each in a new process, and return their models.

    The progress advances when a training is complete, by all its epochs.
    """
    import concurrent.futures
    import multiprocessing

    config = keras.saving.serialize_keras_object(dict(compiled))
    context = multiprocessing.get_context("spawn")
    title = f"{len(trainings)} specialists, {processes} at a time"
    with (
        progress.training(title, 0),
        concurrent.futures.ProcessPoolExecutor(processes, context) as pool,
    ):
        results = pool.map(_run_alone, trainings, itertools.repeat(config), backups)
        for i, weights in enumerate(results):
            trainings[i].model.set_weights(weights)
            progress.move_to((i + 1) * trainings[i].settings["epochs"])
    return [training.model for training in trainings]


def _run_alone(training: SpecialistTraining, config: dict, backup) -> list:
    """Run a training in this process, without output, and return the weights."""
    compiled = keras.saving.deserialize_keras_object(config)
    training.run(compiled, backup, Progress(training.settings["epochs"], 0))
    return training.model.get_weights()


def _create_specialist(generalist: keras.Model, group: list[int]) -> keras.Model:
    """Copy the generalist, with a last layer for the group and the dustbin."""
    head = generalist.layers[-1] if getattr(generalist, "inputs", None) else None
    linear = keras.activations.linear
    if not isinstance(head, layers.Dense) or head.activation is not linear:
        raise TypeError(
            "The generalist must be a functional keras.Model whose last layer is a Dense "
            f"without activation; got {type(generalist).__name__} ending in {head}."
        )
    if preprocessing_of(generalist) is not None:
        raise ValueError(
            f"The generalist '{generalist.name}' preprocesses raw data in its fit and "
            "predict, which specialists do not. Map the images through its preprocessor, "
            "and set generalist.preprocessor = None."
        )
    copy = keras.models.clone_model(generalist)
    copy.set_weights(generalist.get_weights())
    if not generalist.trainable:
        # It was frozen to be a teacher.
        copy.trainable = True
    kernel, *bias = (np.array(w) for w in head.get_weights())
    bias = bias[0] if bias else np.zeros(kernel.shape[-1], kernel.dtype)
    rest = np.setdiff1d(np.arange(kernel.shape[-1]), group)
    # The dustbin's logit is the log of the sum of n equal terms, at the mean logit.
    dustbin = kernel[:, rest].mean(1, keepdims=True)
    dustbin_bias = bias[rest].mean(keepdims=True) + np.log(len(rest))
    own = {"units": len(group) + 1, "name": "specialist_logits"}
    config = {**head.get_config(), **own, "use_bias": True, "trainable": True}
    logits = layers.Dense.from_config(
        {name: x for name, x in config.items() if not name.startswith("lora_")}
    )
    outputs = logits(copy.layers[-1].input)
    logits.set_weights(
        [
            np.concatenate([kernel[:, group], dustbin], 1),
            np.concatenate([bias[group], dustbin_bias]),
        ]
    )
    name = "specialist_" + "_".join(map(str, group))
    return keras.Model(copy.inputs, outputs, name=name[:60])


def draw_samples(samples: Samples, group: list[int], seed: int) -> Samples:
    """Take all samples of a group and as many others; renumber the classes."""
    inside, outside = samples.only(group), samples.without(group)
    missing = sorted(set(group) - set(inside.labels.tolist()))
    if missing or not len(outside):
        raise ValueError(
            "A specialist needs samples of each of its classes and of other classes; "
            f"classes without samples: {missing or 'all others'}."
        )
    outside = outside.few(min(len(inside), len(outside)), seed)
    outputs = np.full(int(samples.labels.max()) + 1, len(group), "int32")
    outputs[group] = np.arange(len(group))
    labels = outputs[np.concatenate([inside.labels, outside.labels])]
    return Samples(
        np.concatenate([inside.images, outside.images]),
        labels,
        np.concatenate([inside.ids, outside.ids]),
    )
