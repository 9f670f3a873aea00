"""Metadata: a compressed record of a teacher's activations on its training data."""

import json
import os
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers as kinds

from keras_distill import taps as tapping
from keras_distill._backend import files
from keras_distill._backend.keras_layers import flatten_layers
from keras_distill._backend.number_checks import check_finite, check_integers
from keras_distill.schemes.data_free import metadata_checks as checks
from keras_distill.schemes.data_free import spectra
from keras_distill.schemes.data_free.dropout_masks import with_masks
from keras_distill.schemes.data_free.goals import Goal, of_activations
from keras_distill.taps import heads
from keras_distill.teachers.cache import fingerprints
from keras_distill.teachers.teacher import Teacher

_DENSE = (kinds.Dense,)
_CONVOLUTIONS = kinds.Conv1D, kinds.Conv2D, kinds.Conv3D
_TRANSPOSED = kinds.Conv1DTranspose, kinds.Conv2DTranspose, kinds.Conv3DTranspose
_DEPTHWISE = kinds.DepthwiseConv1D, kinds.DepthwiseConv2D
_SEPARABLE = kinds.SeparableConv1D, kinds.SeparableConv2D
_KINDS = _DENSE + _CONVOLUTIONS + _TRANSPOSED + _DEPTHWISE + _SEPARABLE


class Metadata:
    """A record of a teacher's activations on its data, without the data.

    Created by `kd.record_metadata`. The file is a single NumPy archive without pickles,
    which holds means, factors of covariances or spectra, and no sample.

    Args:
        settings: kind, layers, fingerprint of the teacher and so on.
        arrays: arrays by name.

    Example:
        >>> metadata = kd.record_metadata(teacher, images, kind="spectral")
        >>> metadata.save("metadata.npz")
        >>> metadata = kd.Metadata.load("metadata.npz")
    """

    def __init__(self, settings: dict, arrays: dict[str, np.ndarray]):
        self.settings, self.arrays = settings, arrays

    def save(self, file: str | os.PathLike) -> None:
        """Save to a file."""
        text = np.frombuffer(json.dumps(self.settings).encode(), "uint8")
        # NumPy appends ".npz" to a path, but not to an open file.
        with files.write_then_rename(file) as beside, open(beside, "wb") as opened:
            np.savez_compressed(opened, settings=text, **self.arrays)

    @classmethod
    def load(cls, file: str | os.PathLike, *, limit: int = 2**30) -> "Metadata":
        """Load from a file.

        Args:
            file: path of the file.
            limit: bytes that the arrays may take at most, once they are unpacked. A small
                file may unpack to a large one. Default 2^30, 1 GiB.

        Raises:
            ValueError: the file does not hold metadata, is damaged or exceeds the limit.
            OSError: it could not be opened.
        """
        folder, name = os.path.split(os.path.abspath(file))
        files.remove_left_over(folder, name)
        try:
            with files.Archive(file, limit) as archive:
                if "settings" not in archive.headers:
                    raise ValueError("it has no settings")
                arrays = archive.read()
            settings = checks.read_settings(arrays.pop("settings"))
            checks.check_arrays(settings, arrays)
        except (files.Damaged, ValueError) as error:
            raise ValueError(
                f"'{file}' is not a metadata file of kd.Metadata.save, or is damaged: "
                f"{error}. Record and save the metadata again, or pass a higher limit for "
                "a file that you trust."
            ) from error
        return cls(settings, arrays)

    def check_teacher(self, teacher: keras.Model) -> None:
        """Check that a teacher is the one whose activations were recorded.

        Raises:
            ValueError: its layers or weights differ.
        """
        found = _fingerprints(teacher)
        # Files of earlier versions lack the connections.
        if found != {name: self.settings.get(name, found[name]) for name in found}:
            raise ValueError(
                f"The metadata belong to another teacher: the layers, their connections or "
                f"the weights of '{teacher.name}' differ. Pass the teacher as it was recorded."
            )
        checks.check_input_shape(self.settings["input_shape"], teacher)

    @property
    def bytes(self) -> int:
        """Return the total size of the arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    def views(self, teacher: keras.Model) -> list[keras.Model]:
        """Return the recorded models: the teacher, or a copy for each dropout mask."""
        masks, seed = self.settings["masks"], self.settings["seed"]
        layers = [path for path in self.settings["layers"] if path != tapping.LOGITS]
        keep = 1.0 - self.settings["dropout"]
        copies = [with_masks(teacher, layers, keep, seed + i) for i in range(masks)]
        return copies or [teacher]

    def targets(self, count: int, view: int, rng: np.random.Generator) -> dict:
        """Draw target activations.

        Args:
            count: number of inputs.
            view: index in `views`.
            rng: generator that draws classes and activations, or samples of spectra.

        Returns:
            Activations `(count, n)` by layer.
        """
        if self._is_spectral:
            return spectra.activations_of(self.goals(count, view, rng), self.arrays)
        counts = self.arrays[f"{view}/shares"]
        classes = rng.choice(len(counts), count, p=counts / counts.sum())
        return {
            path: self._draw(f"{view}/{path}", classes, rng)
            for path in self.settings["layers"]
        }

    def goals(self, count: int, view: int, rng: np.random.Generator) -> list[Goal]:
        """Draw what the activations of reconstructed inputs must equal.

        Of spectra it is the coefficients that were kept, else the activations themselves.

        Args:
            count, view, rng: as in `targets`.
        """
        if self._is_spectral:
            return spectra.draw(self.arrays, self.settings["layers"], count, rng)
        return of_activations(self.targets(count, view, rng))

    @property
    def _is_spectral(self) -> bool:
        return self.settings["kind"] in ("spectral", "pairs")

    def _draw(self, name: str, classes, rng) -> np.ndarray:
        """Draw from the normal distribution of each class."""
        mean, factor = self.arrays[f"{name}/mean"], self.arrays[f"{name}/factor"]
        noise = rng.normal(size=(len(classes), factor.shape[-1])).astype("float32")
        drawn = mean[classes] + np.einsum("br,bnr->bn", noise, factor[classes])
        if self.arrays[f"{name}/low"] >= 0.0:
            # The output of a ReLU is never negative.
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
) -> "Metadata":
    """Record a teacher's activations on its data, to train students without the data.

    - `"top"`: means and covariances of the logits, for each predicted class.
    - `"all"`: the same for each layer too, independently. With `masks`, for that many
      copies of the teacher, each with a fixed dropout mask on its hidden layers.
    - `"spectral"`: the activations of each sample in a layer, as their largest graph
      Fourier coefficients: neurons are the nodes, absolute correlations the edges.
    - `"pairs"`: the same, for the joint graph of each two consecutive layers.

    Spectra reveal far more of each sample than statistics do: if the data are private,
    inspect what `kd.reconstruct` recovers.

    Args:
        teacher: functional or Sequential, with logits as output.
        x: inputs `(N, ...)`.
        kind: one of the four. Default `"spectral"`.
        layers: layers at the top level of the teacher. Default: the logits for `"top"`,
            else each `Dense` and convolution layer and the logits.
        masks: number of dropout masks, for `"all"`. Default 0.
        dropout: fraction of the neurons that a mask drops. Default 0.5.
        keep: fraction of the Fourier coefficients of each graph to keep; of one with the
            logits each sample keeps more where its predicted class needs it. Default 0.1.
        rank: number of principal directions of a covariance to keep. Default 64.
        batch_size: batch size of the prediction. Default 256.
        seed: seed of the masks. Default 0.

    Returns:
        A `kd.Metadata`.

    Raises:
        ValueError: `kind` is unknown, `masks` is used with another kind than `"all"`, a
            fraction is out of range, a layer does not exist or is inside of another one,
            or there is no hidden layer to mask.

    Example:
        >>> kd.record_metadata(teacher, images, kind="all").save("metadata.npz")

    Source:
        Lopes, Fenu, Starner 2017, Data-free knowledge distillation for deep neural
        networks.
    """
    if kind not in checks.KINDS:
        kinds = ", ".join(checks.KINDS)
        raise ValueError(f"kind must be one of {kinds}; got {kind!r}.")
    if masks and kind != "all":
        raise ValueError(f"Dropout masks need kind='all'; got {kind!r}.")
    check_integers(0, masks=masks, seed=seed)
    check_integers(1, rank=rank, batch_size=batch_size)
    for name, fraction in (("keep", keep), ("dropout", dropout)):
        check_finite(**{name: fraction})
        if not 0.0 < fraction < 1.0:
            raise ValueError(f"{name} must lie between 0 and 1; got {fraction}.")
    heads.check_logits(teacher, "teacher")
    if layers is None:
        layers = [tapping.LOGITS] if kind == "top" else _kernel_layers(teacher)
    if masks and not set(layers) - {tapping.LOGITS}:
        raise ValueError(
            f"Dropout masks are put on hidden layers; got the layers {list(layers)} alone. "
            "Pass layers=[...] of the teacher's top level, or masks=0."
        )
    if kind == "pairs" and len(layers) < 2:
        raise ValueError(f"kind='pairs' needs two layers or more; got {list(layers)}.")
    settings = {
        "kind": kind,
        "layers": list(layers),
        "masks": masks,
        "dropout": dropout,
        "seed": seed,
        "input_shape": list(x.shape[1:]),
        **_fingerprints(teacher),
    }
    metadata = Metadata(settings, {})
    for i, model in enumerate(metadata.views(teacher)):
        activations = _activations(model, layers, x, batch_size)
        logits = activations[tapping.LOGITS]
        activations = {path: activations[path] for path in layers}
        if kind in ("spectral", "pairs"):
            metadata.arrays |= spectra.record(activations, kind == "pairs", keep)
        else:
            metadata.arrays |= _statistics(activations, logits, i, rank)
    return metadata


def _fingerprints(teacher: keras.Model) -> dict[str, str]:
    return {
        "teacher": fingerprints.of_teacher(Teacher(teacher)),
        "connections": fingerprints.of_connections([teacher]),
    }


def _kernel_layers(teacher) -> list[str]:
    top = [layer for layer in teacher.layers if isinstance(layer, _KINDS)]
    every = [x for x in flatten_layers(teacher) if isinstance(x, _KINDS)]
    if inside := [x.name for x in every if not any(x is layer for layer in top)]:
        raise ValueError(
            f"The layers {inside} of the teacher '{teacher.name}' are inside of others, "
            "where activations are not recorded. Pass layers=[...] of its top level, or "
            "kind='top'."
        )
    last = teacher.outputs[0]
    return [*(x.name for x in top if x.output is not last), tapping.LOGITS]


def _activations(model, layers, x, batch_size) -> dict[str, np.ndarray]:
    """Return the activations `(N, n)` of all samples by layer, always with the logits."""
    taps = tapping.as_taps(dict.fromkeys([*layers, tapping.LOGITS]))
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    flat = keras.layers.Flatten(dtype="float32", name="recorded")
    outputs = {}
    for tap in taps:
        if tap.is_output:
            tensor = model.outputs[0]
        else:
            tensor = tapping.find_layer(model, tap.path).output
        outputs[tap.path] = flat(tensor)
    tapped = keras.Model(inputs, outputs)
    return tapped.predict(x, batch_size=batch_size, verbose=0)


def _statistics(activations: dict, logits, view: int, rank: int) -> dict:
    """Return means and factors of the covariances, by predicted class."""
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
    """Return the mean and a factor F `(n, r)` of the covariance F F^T."""
    rank = min(rank, width)
    if not len(part):
        return np.zeros(width, "float32"), np.zeros((width, rank), "float32")
    mean = part.mean(0)
    covariance = np.cov(part, rowvar=False, bias=True).reshape(width, width)
    values, vectors = np.linalg.eigh(covariance)
    largest = np.sqrt(np.maximum(values[-rank:], 0.0))
    return mean, (vectors[:, -rank:] * largest).astype("float32")
