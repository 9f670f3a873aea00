"""Teacher assistants: the models of intermediate size between teacher and student."""

import itertools
from collections.abc import Sequence

from keras_distill._backend.number_checks import check_finite, check_integers


def choose_assistants(accuracies: Sequence[float], count: int = 1) -> list[int]:
    r"""Choose the assistants whose accuracies descend in the most even steps.

    A student learns less from a teacher that is much better than itself. Models of
    intermediate size help; the best single one has an accuracy halfway between the two.
    For several, candidates c are chosen so that the largest step of the chain of
    accuracies a is as small as possible:

    .. math::

        \min_{c_1 < \dots < c_n} \max_i \left| a_{c_i} - a_{c_{i+1}} \right|

    Measure accuracies on held-out training data, for models trained alone. Train the
    chain itself with `kd.fit_generations`, whose `make` creates these models in turn.

    Args:
        accuracies: of the teacher, the candidates from large to small, and the student.
        count: number of assistants. Default 1.

    Returns:
        Indices of the chosen candidates in `accuracies`, from large to small.

    Raises:
        ValueError: there are fewer candidates than assistants, or `count` is below 1.

    Example:
        >>> kd.choose_assistants([0.92, 0.91, 0.86, 0.83, 0.79])
        [2]

    Source:
        Mirzadeh et al. 2020, Improved knowledge distillation via teacher assistant.
    """
    candidates = range(1, len(accuracies) - 1)
    check_integers(1, count=count)
    check_finite(**{f"accuracies[{i}]": x for i, x in enumerate(accuracies)})
    if not 1 <= count <= len(candidates):
        raise ValueError(
            f"Cannot choose {count} assistant(s) from {len(candidates)} candidate(s): "
            "accuracies lists the teacher's, then the candidates', then the student's."
        )

    def steps(chosen):
        chain = [accuracies[i] for i in (0, *chosen, len(accuracies) - 1)]
        gaps = [abs(a - b) for a, b in itertools.pairwise(chain)]
        return sorted(gaps, reverse=True)

    return list(min(itertools.combinations(candidates, count), key=steps))
