"""Factors: a teacher's layer in fewer channels, and a student's translated to them."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers, ops

from keras_distill import taps as tapping


class _Steps(layers.Layer):
    """Convolutions of 3x3 (dense layers without places), each normalised."""

    def __init__(self, channels, **kwargs):
        super().__init__(**{"dtype": "float32", "name": "steps", **kwargs})
        self.channels = tuple(channels)

    def build(self, input_shape: tuple):
        self.steps, shape = [], input_shape
        for place, channels in enumerate(self.channels):
            made = (
                layers.Conv2D(channels, 3, padding="same", name=f"step{place}")
                if len(shape) == 4
                else layers.Dense(channels, name=f"step{place}")
            )
            norm = layers.BatchNormalization(name=f"norm{place}")
            made.build(shape)
            shape = (*shape[:-1], channels)
            norm.build(shape)
            self.steps += [made, norm, layers.LeakyReLU(0.1)]

    def call(self, inputs, training=None):
        for step in self.steps:
            normal = isinstance(step, layers.BatchNormalization)
            inputs = step(inputs, training=training) if normal else step(inputs)
        return inputs


@keras.saving.register_keras_serializable(package="keras_distill")
class Translator(_Steps):
    """Three convolutions from a student's layer to a teacher's factors.

    Args:
        channels: of the factors.

    Example:
        >>> kd.adapters.Translator(32)(maps)

    Source:
        Kim, Park, Kwak 2018, Paraphrasing complex network: network compression via
        factor transfer.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__((channels,) * 3, **kwargs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Give the channels of the factors."""
        return (*input_shape[:-1], self.channels[-1])

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "channels": self.channels[-1]}


@keras.saving.register_keras_serializable(package="keras_distill")
class Paraphraser(layers.Layer):
    """An autoencoder of a teacher's layer; its code are the teacher's factors.

    Three convolutions to `rate * C` channels and three back, trained alone by

        || F_t - P(F_t) ||^2

    with `train_on`, which then freezes it. As a layer it gives the code.

    Args:
        rate: k, channels of the code per channel of the teacher. Default 0.5.

    Raises:
        ValueError: the rate is not above 0.

    Example:
        >>> paraphraser = kd.adapters.Paraphraser(rate=0.5)
        >>> paraphraser.train_on(teacher, "stack3", images, epochs=10)

    Source:
        Kim, Park, Kwak 2018, Paraphrasing complex network: network compression via
        factor transfer.
    """

    def __init__(self, rate: float = 0.5, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        if not rate > 0:
            raise ValueError(
                f"rate is the code's channels per channel of the teacher; got {rate}."
            )
        self.rate = rate

    def build(self, input_shape: tuple):
        """Make encoder and decoder."""
        channels = input_shape[-1]
        code = self.code_channels(channels)
        self.encoder = _Steps((channels, code, code), name="encoder")
        self.decoder = _Steps((code, channels, channels), name="decoder")
        self.encoder.build(input_shape)
        self.decoder.build((*input_shape[:-1], code))

    def code_channels(self, channels: int) -> int:
        """Give the channels of the code of a layer of `channels`."""
        return max(1, round(self.rate * channels))

    def call(self, inputs, training=None):
        """Give the factors, `(..., code channels)`."""
        return self.encoder(inputs, training=training)

    def reconstruct(self, inputs, training=None):
        """Give the teacher's layer back from its code."""
        code = self(inputs, training=training)
        return self.decoder(code, training=training)

    def train_on(
        self,
        teacher: keras.Model,
        tap,
        x,
        *,
        epochs: int = 10,
        optimizer="adam",
        **kwargs,
    ):
        """Train on a teacher's layer, then freeze.

        Args:
            teacher: a built model.
            tap: a layer path or a `kd.Tap`.
            x: what `fit` takes: images, or a data set of them; labels are not used.
            epochs: as in `fit`. Default 10.
            optimizer: as in `compile`. Default Adam.
            **kwargs: of `fit`.

        Returns:
            The history of the mean squared error.
        """
        tap = tapping.as_taps(tap)[0]
        trainer = self.trainer(lambda x: tapping.up_to(teacher, x, [tap])[tap])
        trainer.compile(optimizer)
        history = trainer.fit(x, epochs=epochs, **kwargs)
        self.trainable = False
        return history

    def trainer(self, features: Callable) -> keras.Model:
        """Give a model whose `fit` trains the paraphraser.

        Args:
            features: from a batch's inputs to the teacher's layer.
        """
        self.trainable = True
        return _Paraphrasing(self, features)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Give the channels of the code."""
        return (*input_shape[:-1], self.code_channels(input_shape[-1]))

    def get_config(self) -> dict:
        """Give the arguments."""
        return {**super().get_config(), "rate": self.rate}


class _Paraphrasing(keras.Model):
    """Trains a paraphraser on what a function makes of the inputs."""

    def __init__(self, paraphraser, features):
        super().__init__(name="paraphrasing")
        self.paraphraser = paraphraser
        # A function, so that Keras does not find the teacher's variables.
        self.features = features
        self.built = paraphraser.built

    def call(self, inputs, training=None):
        known = ops.stop_gradient(self.features(inputs))
        again = self.paraphraser.reconstruct(known, training=training)
        self.add_loss(ops.mean(ops.square(known - again)))
        return again

    def compute_loss(self, *args, **kwargs):
        return sum(self.losses)
