"""Text as characters, for language models."""

import dataclasses

import numpy as np

from keras_distill.data.load import read_tfds


@dataclasses.dataclass(frozen=True)
class Characters:
    """The three splits of a text, as character indices.

    Args:
        train, validation, test: `(N,)`, int32.
        alphabet: the characters, in the order of their indices.

    Example:
        >>> text = kd.data.load_characters()
        >>> x, y = text.windows("train", 64)
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    alphabet: str

    def windows(self, split: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut a split into windows and the same windows shifted by one character.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            length: L; a remainder shorter than a window is dropped.

        Returns:
            Inputs and targets, two arrays `(N, L)`.

        Raises:
            ValueError: no such split, or it is shorter than one window.
        """
        if split not in ("train", "validation", "test"):
            raise ValueError(f"split is train, validation or test; got {split!r}.")
        text = getattr(self, split)
        count = (len(text) - 1) // length
        if not count:
            raise ValueError(
                f"A window of {length} and its next character do not fit into the "
                f"{len(text)} characters of '{split}'."
            )
        x = text[: count * length].reshape(count, length)
        return x, text[1 : count * length + 1].reshape(count, length)

    def decode(self, indices) -> str:
        """Return the text of character indices `(N,)`."""
        return "".join(self.alphabet[index] for index in indices)


def load_characters(
    name: str = "tiny_shakespeare", data_dir: str | None = None
) -> Characters:
    """Load a TFDS text by name, as character indices.

    Args:
        name: a dataset with a feature `text` and three splits. Default
            `"tiny_shakespeare"`, 1.1 million characters.
        data_dir: TFDS data folder. Default: `TFDS_DATA_DIR`, or else that of TFDS.

    Raises:
        ValueError: the dataset could not be loaded.

    Example:
        >>> text = kd.data.load_characters()
        >>> len(text.alphabet)
        65
    """
    _, splits = read_tfds(name, data_dir, ("train", "validation", "test"))
    texts = [b"".join(split["text"]).decode("utf-8") for split in splits]
    alphabet = "".join(sorted(set("".join(texts))))
    indices = {character: index for index, character in enumerate(alphabet)}
    arrays = (np.array([indices[c] for c in text], "int32") for text in texts)
    return Characters(*arrays, alphabet)
