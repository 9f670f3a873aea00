"""The samples that each student won and lost, as thumbnails or as a table."""

from collections.abc import Callable, Sequence

import numpy as np

from keras_distill.analysis.predictions import softmax
from keras_distill.analysis.report import page, thumbnails
from keras_distill.analysis.report.measured import TEACHER, Measured

# Thumbnails in a page, over all students, and at most in a list.
_IN_ALL, _IN_A_LIST = 48, 12
_CHARACTERS = 160


def sample_cards(
    found: Measured, names: Sequence[str], ids, as_text: Callable | None
) -> str:
    """Return the samples that each student lost and won compared with the teacher.

    Args:
        found: predictions and labels.
        names: names of the classes.
        ids: the sample ids, `(N,)`.
        as_text: function from an input to text; None for images and arrays.
    """
    count = max(2, min(_IN_A_LIST, _IN_ALL // (2 * len(found.students))))
    parts = []
    for student in found.students:
        cards = _Cards(found, student, names, ids, as_text)
        both = found.won_and_lost(student)
        if found.labeled:
            lists = (("lost", "only the teacher is right", both.lost),)
            lists += (("won", "only the student is right", both.won),)
        else:
            lists = (("differs", "another class than the teacher's", both.lost),)
        for word, meaning, chosen in lists:
            number = f"{len(chosen):,} sample{'s' * (len(chosen) != 1)}"
            title = f"{student} {word}: {number}, {meaning}"
            parts.append(f"<h3>{page.escape(title)}</h3>{cards.of(chosen[:count])}")
    return "".join(parts)


class _Cards:
    """Cards of samples, with the predictions of a student and of its teacher."""

    def __init__(self, found: Measured, student: str, names, ids, as_text):
        self.images, self.labels = found.samples.images, found.samples.labels
        self.labeled, self.names, self.ids = found.labeled, names, ids
        self.as_text = as_text
        logits = found.outputs[TEACHER].logits, found.outputs[student].logits
        self.probabilities = [softmax(z) for z in logits]
        self.are_images = as_text is None and thumbnails.are_images(self.images)

    def of(self, indices: np.ndarray) -> str:
        """Return the cards of samples by their indices."""
        if not len(indices):
            return "<p class='soft'>None.</p>"
        if self.are_images:
            limits = thumbnails.value_range(self.images)
            cards = "".join(self._card(i, limits) for i in indices)
            return f"<div class='cards'>{cards}</div>"
        return page.table([self._row(i) for i in indices], text=True)

    def _card(self, i: int, limits) -> str:
        source = thumbnails.thumbnail(self.images[i], limits)
        row = {title: page.escape(value) for title, value in self._facts(i).items()}
        alt = ", ".join(f"{title} {value}" for title, value in row.items())
        first, *others = row.items()
        lines = "".join(f"<br>{title} {value}" for title, value in others)
        return (
            f"<figure><img alt='{alt}' src='{source}'>"
            f"<figcaption><b>{first[0]} {first[1]}</b>{lines}</figcaption></figure>"
        )

    def _row(self, i: int) -> dict:
        facts = self._facts(i)
        number = facts.pop("sample")
        return {"sample": number, **facts, "input": self._text(i)}

    def _facts(self, i: int) -> dict:
        """Return label, predictions and number of a sample as text."""
        facts = {"label": str(self.names[self.labels[i]])} if self.labeled else {}
        for title, p in zip(("teacher", "student"), self.probabilities, strict=True):
            k = p[i].argmax()
            facts[title] = f"{self.names[k]} ({100 * p[i, k]:.0f}%)"
        return {**facts, "sample": str(self.ids[i])}

    def _text(self, i: int) -> str:
        """Return the text of an input that is not an image."""
        value = self.images[i]
        if self.as_text is not None:
            text = self.as_text(value)
        elif isinstance(value, bytes):
            text = value.decode("utf-8", "replace")
        elif np.ndim(value) == 0:
            text = value
        else:
            text = " ".join(f"{x:.4g}" for x in np.ravel(value)[:_CHARACTERS])
        text = str(text)
        return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
