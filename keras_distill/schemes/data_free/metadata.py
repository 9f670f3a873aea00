"""Metadata: what is kept of a teacher's activations where the data can't be."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import keras
import numpy as np

from keras_distill import taps as tapping
from keras_distill.schemes.data_free import spectra
from keras_distill.schemes.data_free.masking import masked
from keras_distill.taps import heads
from keras_distill.teachers.cache import fingerprints
from keras_distill.teachers.teacher import Teacher

KINDS = ("top", "all", "spectral", "pairs")


class Metadata:
    """What was recorded of a teacher on its data, without the data.

    Made by `kd.record_metadata`. It is saved in one NumPy file without pickles, in
    which there are means, factors of covariances or spectra, and no sample.

    Args:
        settings: kind, layers, fingerprint of the teacher and the like.
        arrays: by name.

    Example:
        >>> metadata = kd.record_metadata(teacher, images, kind="spectral")
        >>> metadata.save("metadata.npz")
        >>> metadata = kd.Metadata.load("metadata.npz")
    """

    def __init__(self, settings: dict, arrays: dict[str, np.ndarray]):
        self.settings, self.arrays = settings, arrays

    def save(self, file: str | os.PathLike) -> None:
        """Write the file."""
        text = np.frombuffer(json.dumps(self.settings).encode(), "uint8")
        # NumPy would give a name without an ending another one.
        with open(file, "wb") as opened:
            np.savez_compressed(opened, settings=text, **self.arrays)

    @classmethod
    def load(cls, file: str | os.PathLike) -> Metadata:
        """Read a file.

        Raises:
            ValueError: it is none of metadata.
        """
        with np.load(file, allow_pickle=False) as found:
            arrays = dict(found)
        if "settings" not in arrays:
            raise ValueError(f"'{file}' holds no metadata of a teacher.")
        return cls(json.loads(arrays.pop("settings").tobytes()), arrays)

    def check(self, teacher: keras.Model) -> None:
        """Refuse another teacher than the one that was recorded.

        Raises:
            ValueError: its layers or weights differ.
        """
        if fingerprints.of_teacher(Teacher(teacher)) != self.settings["teacher"]:
            raise ValueError(
                f"The metadata were recorded of another teacher than '{teacher.name}': its "
                "layers or weights differ. Give the teacher as it was recorded."
            )

    @property
    def bytes(self) -> int:
        """Give the size of all that is kept."""
        return sum(array.nbytes for array in self.arrays.values())

    def views(self, teacher: keras.Model) -> list[keras.Model]:
        """Give the nets whose activations were recorded: one for each dropout mask."""
        masks, seed = self.settings["masks"], self.settings["seed"]
        layers = [path for path in self.settings["layers"] if path != tapping.LOGITS]
        if not masks:
            return [teacher]
        return [
            masked(teacher, layers, 1.0 - self.settings["dropout"], seed + i)
            for i in range(masks)
        ]

    def targets(self, count: int, view: int, rng: np.random.Generator) -> dict:
        """Draw what inputs are to be reconstructed from.

        Args:
            count: how many.
            view: of which of `views`.
            rng: draws classes and activations, or which samples' spectra.

        Returns:
            Activations `(count, n)` by layer.
        """
        if self.settings["kind"] in ("spectral", "pairs"):
            return spectra.targets(self.arrays, self.settings["layers"], count, rng)
        shares = self.arrays[f"{view}/shares"]
        classes = rng.choice(len(shares), count, p=shares / shares.sum())
        return {
            path: self._drawn(f"{view}/{path}", classes, rng)
            for path in self.settings["layers"]
        }

    def _drawn(self, name: str, classes, rng) -> np.ndarray:
        """Draw from each class's normal distribution."""
        mean, factor = self.arrays[f"{name}/mean"], self.arrays[f"{name}/factor"]
        noise = rng.normal(size=(len(classes), factor.shape[-1])).astype("float32")
        drawn = mean[classes] + np.einsum("br,bnr->bn", noise, factor[classes])
        if self.arrays[f"{name}/low"] >= 0.0:
            # Behind a rectifier nothing is below zero.
            return np.maximum(drawn, 0.0)
        return drawn


def record_metadata(
    teacher: keras.Model,
    x: np.ndarray,
    *,
    kind: str = "spectral",
    layers: Sequence[str] | None = None,
    masks: int = 0,
    dropout: float = 0.5,
    keep: float = 0.1,
    rank: int = 64,
    batch_size: int = 256,
    seed: int = 0,
) -> Metadata:
    """Record a teacher's activations on its data, for students without data.

    - `"top"`: means and covariances of the logits, for each class that it predicts.
    - `"all"`: of the layers too, each for itself. With `masks`, of so many nets, each
      with one fixed dropout mask on its hidden layers.
    - `"spectral"`: each sample's activations of a layer, as their largest coefficients
      in the spectrum of the graph of its neurons, which are joined as strongly as they
      correlate (a graph Fourier transform).
    - `"pairs"`: the same of the joint graph of each two neighbouring layers.

    Spectra tell far more of each sample than statistics do: where data are private, look
    at what comes back out of `kd.reconstruct`.

    Args:
        teacher: functional, with logits.
        x: inputs `(N, ...)`.
        kind: one of the four. Default `"spectral"`.
        layers: paths. Default: each `Dense` and convolution, and the logits; for `"top"`
            the logits.
        masks: dropout masks of `"all"`. Default 0: none.
        dropout: share of the neurons that a mask takes out. Default 0.5.
        keep: share of a spectrum's coefficients that is kept. Default 0.1.
        rank: directions of the covariance that are kept. Default 64.
        batch_size: Default 256.
        seed: of the masks. Default 0.

    Returns:
        `kd.Metadata`.

    Raises:
        ValueError: an unknown kind, masks for another than `"all"`, a share out of
            range, or a layer that is not there.

    Example:
        >>> kd.record_metadata(teacher, images, kind="all").save("metadata.npz")

    Source:
        Lopes, Fenu, Starner 2017, Data-free knowledge distillation for deep neural
        networks.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}; got {kind!r}.")
    if masks and kind != "all":
        raise ValueError(f"Dropout masks go with kind='all'; got {kind!r}.")
    for name, share in (("keep", keep), ("dropout", dropout)):
        if not 0.0 < share < 1.0:
            raise ValueError(f"{name} lies between 0 and 1; got {share}.")
    heads.must_give_logits(teacher, "teacher")
    if layers is None:
        layers = [tapping.LOGITS] if kind == "top" else _with_kernels(teacher)
    if kind == "pairs" and len(layers) < 2:
        raise ValueError(f"Pairs are of two layers or more; got {list(layers)}.")
    settings = {
        "kind": kind,
        "layers": list(layers),
        "masks": masks,
        "dropout": dropout,
        "seed": seed,
        "input_shape": list(x.shape[1:]),
        "teacher": fingerprints.of_teacher(Teacher(teacher)),
    }
    made, arrays = Metadata(settings, {}), {}
    for place, net in enumerate(made.views(teacher)):
        activations = _activations(net, layers, x, batch_size)
        logits = activations[tapping.LOGITS]
        activations = {path: activations[path] for path in layers}
        if kind in ("spectral", "pairs"):
            arrays |= spectra.of(activations, kind == "pairs", keep)
        else:
            arrays |= _statistics(activations, logits, place, rank)
    made.arrays = arrays
    return made


def _with_kernels(teacher) -> list[str]:
    kinds = keras.layers.Dense, keras.layers.Conv2D, keras.layers.Conv1D
    found = [layer for layer in teacher.layers if isinstance(layer, kinds)]
    hidden = [layer.name for layer in found if layer.output is not teacher.output]
    return [*hidden, tapping.LOGITS]


def _activations(net, layers, x, batch_size) -> dict[str, np.ndarray]:
    """Give all samples' activations `(N, n)` by layer, the logits always."""
    wanted = tapping.as_taps(dict.fromkeys([*layers, tapping.LOGITS]))
    inputs = net.inputs[0] if len(net.inputs) == 1 else net.inputs
    flat = keras.layers.Flatten(dtype="float32", name="recorded")
    outputs = {
        tap.path: flat(
            net.output if tap.is_logits else tapping.find_layer(net, tap.path).output
        )
        for tap in wanted
    }
    tapped = keras.Model(inputs, outputs)
    found = tapped.predict(x, batch_size=batch_size, verbose=0)
    return {tap.path: found[tap.path] for tap in wanted}


def _statistics(activations: dict, logits, view: int, rank: int) -> dict:
    """Give means and factors of covariances, by class of the prediction."""
    predicted, classes = logits.argmax(-1), logits.shape[-1]
    arrays = {f"{view}/shares": np.bincount(predicted, minlength=classes)}
    for path, values in activations.items():
        parts = [values[predicted == k] for k in range(classes)]
        pairs = [_mean_and_factor(part, values.shape[-1], rank) for part in parts]
        means, factors = zip(*pairs, strict=True)
        arrays[f"{view}/{path}/mean"] = np.stack(means)
        arrays[f"{view}/{path}/factor"] = np.stack(factors)
        arrays[f"{view}/{path}/low"] = values.min()
    return arrays


def _mean_and_factor(part, width: int, rank: int) -> tuple:
    """Give the mean and `(n, r)` whose product with itself is the covariance."""
    rank = min(rank, width)
    if not len(part):
        return np.zeros(width, "float32"), np.zeros((width, rank), "float32")
    mean = part.mean(0)
    covariance = np.cov(part, rowvar=False, bias=True).reshape(width, width)
    values, vectors = np.linalg.eigh(covariance)
    largest = np.sqrt(np.maximum(values[-rank:], 0.0))
    return mean, (vectors[:, -rank:] * largest).astype("float32")
