"""The paraphraser and the translator of factor transfer."""

from collections.abc import Callable

import keras
from keras import layers, ops

from keras_distill import taps as tapping
from keras_distill._backend.number_checks import check_finite, check_integers
from keras_distill.adapters.adapter import Adapter, linear
from keras_distill.taps import tracing
from keras_distill.taps.layouts import check_channels_last


class _Steps(Adapter):
    """3x3 convolutions (dense layers without spatial axes), each batch-normalized."""

    def __init__(self, *widths, **kwargs):
        super().__init__(**{"name": "steps", **kwargs})
        self.widths = widths

    def build(self, input_shape: tuple):
        self.steps, shape = [], input_shape
        policy = {"dtype": self.dtype_policy}
        for i, width in enumerate(self.widths):
            projection = linear(width, shape, size=3, name=f"step{i}", **policy)
            norm = layers.BatchNormalization(name=f"norm{i}", **policy)
            projection.build(shape)
            shape = (*shape[:-1], width)
            norm.build(shape)
            self.steps += [projection, norm, layers.LeakyReLU(0.1, **policy)]

    def call(self, inputs, training=None, mask=None):
        for step in self.steps:
            is_norm = isinstance(step, layers.BatchNormalization)
            masked = {"mask": mask} if is_norm else {}
            inputs = step(inputs, training=training, **masked)
        return inputs


@keras.saving.register_keras_serializable(package="keras_distill")
class Translator(_Steps):
    """Three convolutions from a student's layer to a teacher's factors.

    Args:
        channels: number of channels of the factors.

    Example:
        >>> kd.adapters.Translator(32)(maps)

    Source:
        Kim, Park, Kwak 2018, Paraphrasing complex network: network compression via
        factor transfer.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(channels, channels, channels, **kwargs)
        check_integers(1, channels=channels)
        self.channels = channels

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.channels)


@keras.saving.register_keras_serializable(package="keras_distill")
class Paraphraser(Adapter):
    r"""An autoencoder of a teacher's layer, whose code is the teacher's factors.

    Three convolutions to `rate * C` channels and three back, trained on their own by

    .. math::

        \mathrm{mean} \, (F_t - P(F_t))^2

    with `train_on`, which then freezes it. Calling the layer returns the code.

    Args:
        rate: k, channels of the code per channel of the teacher. Default 0.5.

    Raises:
        ValueError: `rate` is not above 0.

    Example:
        >>> paraphraser = kd.adapters.Paraphraser(rate=0.5)
        >>> paraphraser.train_on(teacher, "stack3", images, epochs=2)

    Source:
        Kim, Park, Kwak 2018, Paraphrasing complex network: network compression via
        factor transfer.
    """

    def __init__(self, rate: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        check_finite(rate=rate)
        if not rate > 0:
            raise ValueError(
                f"rate, code channels per teacher channel, must be above 0; got {rate}."
            )
        self.rate = rate

    def build(self, input_shape: tuple):
        channels = input_shape[-1]
        code = self.code_channels(channels)
        policy = {"dtype": self.dtype_policy}
        self.encoder = _Steps(channels, code, code, name="encoder", **policy)
        self.decoder = _Steps(code, channels, channels, name="decoder", **policy)
        self.encoder.build(input_shape)
        self.decoder.build((*input_shape[:-1], code))
        # Keras passes it on where it is set, but not to layers that are built later, such
        # as those of one that was saved frozen.
        for part in (self.encoder, self.decoder):
            part.trainable = self.trainable

    def code_channels(self, channels: int) -> int:
        """Return the number of code channels for a layer with `channels` channels."""
        return max(1, round(self.rate * channels))

    def call(self, inputs, training=None, mask=None):
        """Return the factors, `(..., code channels)`."""
        return self.encoder(inputs, training=training, mask=mask)

    def reconstruct(self, inputs, training=None, mask=None):
        """Return the teacher's layer as decoded from its code."""
        code = self(inputs, training=training, mask=mask)
        return self.decoder(code, training=training, mask=mask)

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
            x: images, or a dataset of them, as in `fit`; labels are not used.
            epochs: as in `fit`. Default 10.
            optimizer: as in `compile`. Default Adam.
            **kwargs: further arguments of `fit`.

        Returns:
            The `History` of the mean squared error.

        Raises:
            ValueError: the layer's output has its channels first.
        """
        check_integers(1, epochs=epochs)
        tap = tapping.as_taps(tap)[0]
        if (inputs := tracing.input_of(teacher)) is not None:
            check_channels_last(teacher, inputs, [tap])
        trainer = self.trainer(lambda x: tapping.up_to(teacher, x, [tap])[tap])
        trainer.compile(optimizer)
        history = trainer.fit(x, epochs=epochs, **kwargs)
        self.trainable = False
        return history

    def trainer(self, features: Callable) -> keras.Model:
        """Return a model whose `fit` trains on `features(inputs)`, the teacher's layer."""
        self.trainable = True
        return _Paraphrasing(self, features)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.code_channels(input_shape[-1]))


class _Paraphrasing(keras.Model):
    """Trains a paraphraser on the features that a function computes from the inputs."""

    def __init__(self, paraphraser, features):
        super().__init__(name="paraphrasing")
        self.paraphraser = paraphraser
        # A function, so that Keras does not track the teacher's variables.
        self.features = features
        self.built = paraphraser.built

    def call(self, inputs, training=None):
        features = self.features(inputs)
        mask = tapping.mask_of(features)
        features = ops.stop_gradient(features)
        reconstruction = self.paraphraser.reconstruct(features, training, mask)
        self.add_loss(_mean(ops.square(features - reconstruction), mask))
        return reconstruction


def _mean(values, mask):
    """Return the mean over all entries, without masked steps of a sequence."""
    if mask is None:
        return ops.mean(values)
    mask = ops.cast(mask, values.dtype)
    total = ops.sum(ops.mean(values, axis=-1) * mask)
    return total / ops.maximum(ops.sum(mask), 1.0)
