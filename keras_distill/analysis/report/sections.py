"""The sections of the page."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_distill.analysis.attention import attention_maps, plot_attention_maps
from keras_distill.analysis.report import page, thumbnails
from keras_distill.analysis.report.class_panels import class_panels
from keras_distill.analysis.report.cost_panels import (
    comparison_panels,
    cost_panels,
    reliability_panels,
)
from keras_distill.analysis.report.curves import Curves, pull_panels, training_panels
from keras_distill.analysis.report.gains import baseline, gain_panels
from keras_distill.analysis.report.measured import Measured
from keras_distill.analysis.report.page import Section
from keras_distill.analysis.report.panels import as_svg, theme
from keras_distill.analysis.report.sample_cards import sample_cards
from keras_distill.taps import Tap

# Attention maps: the images that are shown, and the largest side of a map.
_IMAGES, _POSITIONS = 6, 28


@dataclasses.dataclass(frozen=True, eq=False)
class Sections:
    """What the page is made from; the fields are as in `report`."""

    models: Mapping[str, keras.Model]
    found: Measured
    names: Sequence[str]
    ids: np.ndarray | None
    temperature: float
    as_text: Callable | None
    tap: str | Tap | None

    def page(
        self,
        rows: Sequence[Mapping],
        curves: Mapping[str, Curves],
        pulls: Mapping[str, Curves],
        comparison: Sequence[Mapping] | None,
    ) -> str:
        """Return the page."""
        names = dict.fromkeys([*self.found.outputs, *curves, *pulls])
        numbers = {name: i for i, name in enumerate(names)}
        models = {name: numbers[name] for name in self.found.outputs}
        sections = [self._summary(rows), self._costs(models)]
        if curves:
            sections.append(_training(curves, numbers))
        pulled = pull_panels(curves, pulls)
        if pulled:
            sections.append(_pulls(pulled))
        if comparison is not None:
            sections.append(_comparison(comparison))
        sections.append(self._gains())
        if self.found.labeled:
            sections.append(self._reliability(models))
        sections += [self._samples(), self._classes()]
        if self.tap is not None:
            sections.append(self._attention())
        count, classes = len(self.found.samples.labels), len(self.names)
        about = f"{count:,} samples, {classes:,} classes; Keras on {keras.backend.backend()}."
        return page.page("A teacher and its students", about, sections)

    def _summary(self, rows) -> Section:
        text = (
            "Agreement is the share of samples for which student and teacher predict the "
            "same class; divergence is the mean KL divergence from the teacher, in nats."
        )
        if not self.found.labeled:
            text += " The data have no labels."
        return Section("Summary", text, page.table(rows))

    def _costs(self, numbers) -> Section:
        text = (
            "Up is better, left is cheaper. Multiplications are those of dense and "
            "convolutional layers; latency is the median of compiled inference on this "
            "machine, in batches of up to 64."
        )
        return Section("Accuracy and cost", text, cost_panels(self.found, numbers))

    def _gains(self) -> Section:
        over = f"gains over {baseline(self.found)}"
        if self.found.labeled:
            text = f"Accuracy on each class: {over}, from the largest to the smallest."
        else:
            text = f"Agreement by the class that the teacher predicts: {over}."
        return Section("Gains by class", text, gain_panels(self.found, self.names))

    def _reliability(self, numbers) -> Section:
        text = (
            "Below the line a model is more confident than it is right. Points of bins "
            "with few samples vary a lot."
        )
        return Section("Calibration", text, reliability_panels(self.found, numbers))

    def _samples(self) -> Section:
        ids = self.ids
        if ids is None:
            ids = np.arange(len(self.found.samples.labels))
        text = (
            "Sorted by how much more probability one model assigns to the label than the "
            "other, the largest differences first."
        )
        title = "Samples lost and won"
        if not self.found.labeled:
            title = "Samples that differ"
            text = "Students predict another class than the teacher, which comes first."
        cards = sample_cards(self.found, self.names, ids, self.as_text)
        return Section(title, text, cards)

    def _classes(self) -> Section:
        text = (
            f"Correlation of the classes' probabilities at temperature {self.temperature:g}: "
            "red where two rise together, blue where one falls as the other rises. Classes "
            "that the teacher finds similar are side by side, in its order for all models."
        )
        content = class_panels(self.found, self.names, self.temperature)
        return Section("Class correlation", text, content)

    def _attention(self) -> Section:
        images = np.asarray(self.found.samples.images[:_IMAGES])
        maps = {}
        for name, model in self.models.items():
            found = attention_maps(model, images, self.tap)
            maps[name] = [thumbnails.shrunk(one, _POSITIONS) for one in found]
        limits = thumbnails.value_range(images)
        shown = [_scaled(image, limits) for image in images]
        with theme(grid=False):
            figure = plot_attention_maps(shown, maps)
            for axis in figure.axes:
                axis.set_title(axis.get_title("left"), loc="left", fontsize=12)
            alt = f"Attention maps of '{self.tap}' for {len(shown)} images"
            svg = as_svg(figure, alt)
        text = f"Activation-based attention of '{self.tap}': where each model looks."
        return Section("Attention maps", text, page.wide(svg))


def _training(curves, numbers) -> Section:
    text = "Each logged quantity by epoch; dashed lines are on the validation data."
    return Section("Training curves", text, training_panels(curves, numbers))


def _pulls(content: str) -> Section:
    text = (
        "Norm of the gradient of each part of the loss by the student's weights, times its "
        "weight. A cosine below 0 means that a part pulls against the labels."
    )
    return Section("Pull of each part", text, content)


def _comparison(rows) -> Section:
    text = "Methods on the same student; a step takes a multiple of the first method's."
    return Section("Comparison of methods", text, comparison_panels(rows))


def _scaled(image: np.ndarray, limits) -> np.ndarray:
    low, high = limits
    image = thumbnails.shrunk(thumbnails.channels_last(image))
    return np.clip((image - low) / (high - low), 0.0, 1.0)
