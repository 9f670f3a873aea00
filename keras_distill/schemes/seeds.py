"""Random seeds in front of a training of a scheme."""

from collections.abc import Iterable

import keras

from keras_distill.data.preprocessing import renew_assets


def set_seed(seed: int, models: Iterable[keras.Model] = ()) -> None:
    """Set all random seeds, as `keras.utils.set_random_seed`.

    TensorFlow then forgets what tokenizers of sentence pieces have loaded: those in front
    of the models load it again.

    Args:
        seed: an integer.
        models: with preprocessing of their own, or without.
    """
    keras.utils.set_random_seed(seed)
    for model in models:
        renew_assets(model)
