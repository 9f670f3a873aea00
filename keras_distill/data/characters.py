"""A text as characters, for language models."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Characters:
    """A text's three splits as numbers of characters.

    Args:
        train, validation, test: `(N,)`, int32.
        alphabet: the characters, in the order of their numbers.

    Example:
        >>> text = kd.data.load_characters()
        >>> x, y = text.windows("train", 64)
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    alphabet: str

    def windows(self, split: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut a split into windows and, one character on, what follows in each place.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            length: L; the end that does not fill a window is left out.

        Returns:
            Two arrays `(N, L)`.

        Raises:
            ValueError: another split, or not even one window.
        """
        if split not in ("train", "validation", "test"):
            raise ValueError(
                f"The splits are train, validation and test; got {split!r}."
            )
        text = getattr(self, split)
        count = (len(text) - 1) // length
        if not count:
            raise ValueError(
                f"A window of {length} and its next character do not fit into the "
                f"{len(text)} characters of '{split}'."
            )
        x = text[: count * length].reshape(count, length)
        return x, text[1 : count * length + 1].reshape(count, length)

    def decode(self, numbers) -> str:
        """Give the text of numbers.

        Args:
            numbers: `(N,)`.
        """
        return "".join(self.alphabet[number] for number in numbers)


def load_characters(
    name: str = "tiny_shakespeare", data_dir: str | None = None
) -> Characters:
    """Load a TFDS text by name, as numbers of its characters.

    Args:
        name: of a data set with a feature `text` and three splits. Default
            `"tiny_shakespeare"`, 1.1 million characters.
        data_dir: TFDS data folder. Default: TFDS's own, or that in `TFDS_DATA_DIR`.

    Raises:
        ValueError: the data set can't be had; the message says what to do.

    Example:
        >>> text = kd.data.load_characters()
        >>> len(text.alphabet)
        65
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        texts = {
            split: b"".join(
                example["text"] for example in tfds.as_numpy(builder.as_dataset(split))
            ).decode("utf-8")
            for split in ("train", "validation", "test")
        }
    except Exception as error:
        raise ValueError(
            f"The text '{name}' can't be had ({type(error).__name__}): connect to a "
            "network, or set TFDS_DATA_DIR to a folder that holds it."
        ) from error
    alphabet = "".join(sorted(set("".join(texts.values()))))
    number = {character: place for place, character in enumerate(alphabet)}
    splits = {
        split: np.array([number[character] for character in text], "int32")
        for split, text in texts.items()
    }
    return Characters(**splits, alphabet=alphabet)
