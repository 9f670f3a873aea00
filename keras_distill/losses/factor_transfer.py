"""Factor transfer: a paraphrase of the teacher's layer, which the student translates to."""

import keras
from keras import ops

from keras_distill import adapters
from keras_distill.adapters.match import Match
from keras_distill.losses._masking import inverse_fraction, of_both
from keras_distill.losses._vectors import unit_vectors
from keras_distill.losses.distillation_loss import DistillationLoss


@keras.saving.register_keras_serializable(package="keras_distill")
class FactorTransfer(DistillationLoss):
    r"""Mean absolute distance of factors, each sample's scaled to length 1.

    An autoencoder compresses the teacher's layer to fewer, more informative channels,
    and the student learns them through a translator of its own:

    .. math::

        \ell = \mathrm{mean} \left|
            \frac{F_T}{\lVert F_T \rVert} - \frac{F_S}{\lVert F_S \rVert} \right|

    with F_T the paraphraser's code and F_S the translator's output. The paraphraser is
    trained first, on the teacher alone, and frozen; it is saved with the distiller.

    Recommended weight: 500 (the authors', for their maps of 8x8). The paper's L1 norm, the
    sum over the n = H W K numbers of a factor, is n times this mean. The numbers of a
    vector of length 1 are about 1 / sqrt(n), so that the pull of 500 on factors of n
    numbers is that of `500 * sqrt(m / n)` on those of m; `kd.suggest_weights` finds a
    weight for your models.

    Args:
        paraphraser: a `kd.adapters.Paraphraser`, trained with its `train_on` or by an
            earlier `kd.ParaphraserStage`.
        name, reduction, dtype: as in `DistillationLoss`.

    Raises:
        TypeError: `paraphraser` is not a `kd.adapters.Paraphraser`.
        ValueError: the paraphraser was not trained; raised by `fit`.

    Example:
        >>> paraphraser = kd.adapters.Paraphraser()
        >>> paraphraser.train_on(teacher, "stack3", images, epochs=2)
        >>> kd.Term(kd.losses.FactorTransfer(paraphraser), "stack3", "stack3")

    Source:
        Kim, Park, Kwak 2018, Paraphrasing complex network: network compression via
        factor transfer (FT).
    """

    recommended_weight = 500.0
    needs = ("mask", "teacher_mask")

    def __init__(self, paraphraser: adapters.Paraphraser, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(paraphraser, adapters.Paraphraser):
            raise TypeError(
                "FactorTransfer takes a kd.adapters.Paraphraser that was trained on the "
                f"teacher; got {type(paraphraser).__name__}."
            )
        self.paraphraser = paraphraser

    def prerequisites(self):
        """Return the paraphraser."""
        return (self.paraphraser,)

    def adapters(self, student, teacher):
        """Return pooling and a translator, and the paraphraser and pooling."""
        pool, pool_teacher = Match.SPACE.infer(student, teacher)
        factors = self.paraphraser.code_channels(teacher[-1])
        translator = adapters.Translator(factors, name="translator")
        return (
            adapters.chain([pool, translator]),
            adapters.chain([self.paraphraser, pool_teacher]),
        )

    def call(self, teacher, student, *, mask, teacher_mask):
        """Return `(B,)` for factors of any shape."""
        mask = of_both(mask, teacher_mask)
        gap = unit_vectors(student, mask) - unit_vectors(teacher, mask)
        # The gradient of `ops.abs` at 0 is 1 on JAX.
        values = ops.mean(gap * ops.stop_gradient(ops.sign(gap)), axis=-1)
        return values * inverse_fraction(mask, values.dtype)
