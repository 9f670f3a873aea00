"""Pairs of digits, classes of known super-classes, and what a teacher knows of them."""

import keras
import numpy as np

import keras_distill as kd
from claims.protocol import by_row
from claims.training import accuracy

GROUPS = [k // 10 for k in range(100)]


def pairs(digits, count: int, seed: int, noise: float) -> kd.data.Samples:
    """Return pairs of digits at half the resolution, the second with noise.

    Args:
        digits: MNIST's, or some of them.
        count: number of pairs, drawn at random.
        seed: of the draw and the noise.
        noise: standard deviation.
    """
    rng = np.random.default_rng(seed)
    index = rng.integers(len(digits), size=(2, count))
    small = digits.images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4))
    first, second = small[index[0]], small[index[1]]
    second = second + rng.normal(0.0, noise, second.shape).astype("float32")
    labels = 10 * digits.labels[index[0]] + digits.labels[index[1]]
    return kd.data.Samples(np.concatenate([first, second], 2), labels.astype("int32"))


def blocks(teacher, samples, temperature: float | None, top: int | None = None):
    """Return how block-diagonal the correlation of a teacher's classes is.

    Args:
        teacher: returns logits.
        samples: pairs.
        temperature: of the predictions; None for the weights of the last layer.
        top: number of classes of each prediction that are kept. Default: all.
    """
    groups = np.arange(100).reshape(10, 10).tolist()
    if temperature is None:
        return kd.analysis.weight_similarity(teacher, groups=groups).blocks
    if top is not None:
        log_p = kd.targets.TopK(top)(teacher.output, temperature)
        teacher, temperature = keras.Model(teacher.input, log_p), 1.0
    (found,) = kd.analysis.class_correlation(
        teacher, samples, (temperature,), groups=groups
    )
    return found.blocks


def measure_teacher(teacher, train, test, temperature: float) -> dict[str, float]:
    """Return the accuracy of a teacher, and its mean confidence with the deviation."""
    logits = teacher.predict(train.images, 1000, verbose=0)
    p = keras.ops.convert_to_numpy(keras.ops.softmax(logits / temperature))
    p = p[np.arange(len(p)), train.labels]
    found = {"confidence": p.mean(), "deviation": p.std()}
    return {"accuracy": accuracy(teacher, test), **found}


def plot_over_k(cells, file) -> None:
    """Plot the accuracy of the rows `k = ...`, as in the paper's figure 3."""
    from matplotlib.figure import Figure

    of_row = by_row(cells, "accuracy")
    tops = sorted(int(row.split()[-1]) for row in of_row if row.startswith("k = "))
    axes = (figure := Figure(figsize=(4.6, 3.4), layout="constrained")).subplots()
    values = [of_row[f"k = {k}"] for k in tops]
    means, deviations = ([of(x) for x in values] for of in (np.mean, np.std))
    axes.errorbar(tops, means, deviations, fmt="o-", label="KD-topk")
    for name, color in (("KD", "C1"), ("student", "C2")):
        if name in of_row:
            axes.axhline(np.mean(of_row[name]), color=color, label=name)
    axes.set(xlabel="k", ylabel="test accuracy %")
    axes.legend()
    figure.savefig(file)
