"""The training of a specialist for each group of classes."""

import os
from collections.abc import Mapping, Sequence

import keras

from keras_distill._backend.number_checks import check_above, check_in, check_integers
from keras_distill.data import Samples
from keras_distill.schemes.progress import Progress
from keras_distill.schemes.specialists.class_groups import check_groups
from keras_distill.schemes.specialists.specialist_training import (
    SpecialistTraining,
    draw_samples,
    run_in_processes,
)


def fit_specialists(
    generalist: keras.Model,
    groups: Sequence[Sequence[int]],
    samples: Samples,
    *,
    compiled: Mapping[str, object],
    soft_weight: float = 0.5,
    temperature: float = 1.0,
    epochs: int = 1,
    batch_size: int = 128,
    seed: int = 0,
    processes: int = 1,
    backup: str | None = None,
    verbose: int | str = "auto",
) -> list[keras.Model]:
    r"""Train a specialist for each group of classes.

    A specialist is initialized from the generalist, with a last layer for the classes of
    its group and a dustbin for all others. It trains on as many samples of other classes
    as of its group, with labels and the generalist's soft targets, whose other classes
    are merged. Afterwards the dustbin's bias b is corrected for the sampling, by the odds
    of other classes among all N samples and among the n that were drawn:

    .. math::

        b \leftarrow b + \log \frac{N_{\mathrm{other}}}{N_{\mathrm{group}}}
            - \log \frac{n_{\mathrm{other}}}{n_{\mathrm{group}}}

    Args:
        generalist: functional, with a `Dense` without activation as its last layer.
        groups: the classes of each specialist, as from `kd.cluster_classes`.
        samples: samples of all classes.
        compiled: arguments of `compile`: `optimizer`, `loss`, `metrics`.
        soft_weight: weight of soft targets; labels get `1 - soft_weight`. Default 0.5.
        temperature: T of the soft targets. Default 1.
        epochs: number of epochs for each specialist. Default 1.
        batch_size: batch size. Default 128.
        seed: seed of the sampling and of the order of samples. Default 0.
        processes: number of specialists trained at once, each in a new process; the main
            script needs `if __name__ == "__main__":`. Default 1, in this process.
        backup: folder that keeps the progress. Default: none.
        verbose: 0 for silent, 1 or `"auto"` for one bar over all epochs with the time
            left, 2 for one line per epoch.

    Returns:
        One model per group, whose logits are those of its classes, in the group's order,
        and of the dustbin.

    Raises:
        TypeError: the generalist has another last layer.
        ValueError: a group is empty, holds all classes or one twice, or a class has no
            samples.

    Example:
        >>> specialists = kd.fit_specialists(
        ...     generalist, groups, samples, compiled={"optimizer": "adam", "loss": loss})
        >>> model = kd.SpecialistEnsemble(generalist, specialists, groups)

    Source:
        Hinton, Vinyals, Dean 2015, Distilling the knowledge in a neural network
        (section 5).
    """
    check_integers(1, epochs=epochs, batch_size=batch_size, processes=processes)
    check_integers(0, seed=seed)
    check_in(0, 1, soft_weight=soft_weight)
    check_above(0, temperature=temperature)
    groups = [[int(k) for k in group] for group in groups]
    check_groups(generalist, groups)
    settings = {
        "soft_weight": soft_weight,
        "temperature": temperature,
        "epochs": epochs,
        "batch_size": batch_size,
    }
    trainings = []
    for training_seed, group in enumerate(groups, start=seed):
        drawn = draw_samples(samples, group, training_seed)
        arguments = generalist, group, drawn, len(samples), training_seed, settings
        trainings.append(SpecialistTraining(*arguments))
    progress = Progress(len(groups) * epochs, verbose)
    folders = [backup and os.path.join(backup, str(n)) for n in range(len(groups))]
    if processes > 1:
        return run_in_processes(processes, trainings, compiled, folders, progress)
    for training, folder in zip(trainings, folders, strict=True):
        training.run(compiled, folder, progress)
    return [training.model for training in trainings]
