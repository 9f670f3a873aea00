"""A teacher whose weights are a running mean of the student's."""

import keras

from keras_distill._backend.number_checks import check_finite
from keras_distill.teachers.base_teacher import check_trained
from keras_distill.teachers.copies import Copies
from keras_distill.teachers.teacher import Teacher


class MeanTeacher(Teacher):
    r"""A teacher whose weights are a running mean of the student's.

    At each step, before it is called,

    .. math::

        w_t \leftarrow d \, w_t + (1 - d) \, w_s, \quad d = \min \left( \mathrm{decay},
            \frac{1 + \mathrm{step}}{10 + \mathrm{step}} \right)

    so that the mean soon forgets the initial weights. It is a copy of the student, saved
    in the distiller's backups, and runs in inference form.

    Args:
        student: the built model that the distiller trains. What it trains has variables
            in float32, as under mixed precision.
        decay: d, at least 0 and below 1. Default 0.999.

    Raises:
        TypeError: the student is not a `keras.Model`.
        ValueError: it is not built, it trains variables in float16 or bfloat16, where
            steps as small as the mean's are lost, or the decay is out of range.

    Example:
        >>> distiller = kd.Distiller(student, kd.MeanTeacher(student))

    Source:
        Tarvainen, Valpola 2017, Mean teachers are better role models.
    """

    checks_first_batch = False

    def __init__(self, student: keras.Model, decay: float = 0.999):
        check_finite(decay=decay)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay is at least 0 and below 1; got {decay}.")
        check_trained(student)
        _check_precision(student)
        self.decay = decay
        self.copies = Copies([student], "mean_teacher")
        super().__init__(self.copies.models[0])

    def follow(self, step) -> None:
        """Update the running mean."""
        del step
        self.copies.average(self.decay)


def _check_precision(student: keras.Model) -> None:
    """Check that no trained variable is in a precision in which its mean stands still."""
    for variable in student.trainable_variables:
        dtype = keras.backend.standardize_dtype(variable.dtype)
        if dtype in ("float16", "bfloat16"):
            raise ValueError(
                f"'{student.name}' trains variables in {dtype} ({variable.path} is one), "
                "whose mean would stand still: its steps are below the rounding of "
                f"{dtype}. Build the student under the dtype policy 'mixed_{dtype}', "
                f"which computes in {dtype} and has variables in float32."
            )
