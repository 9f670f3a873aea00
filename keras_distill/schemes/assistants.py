"""Teacher assistants: which sizes stand between a teacher and a student."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def choose_assistants(accuracies: Sequence[float], count: int = 1) -> list[int]:
    """Choose assistants so that the steps of accuracy on the way down are most even.

    A student learns worse from a teacher that is much better than it. Between the two,
    nets of sizes between help; the best single one has an accuracy near the middle of
    both. For several, the largest step of the chain is made as small as it can be:

        argmin over c_1 < ... < c_n of max_i |a_{c_i} - a_{c_{i+1}}|

    Take accuracies on held-out training data, of nets trained alone. The chain itself
    is `kd.fit_generations` with a `make` that gives those nets in turn.

    Args:
        accuracies: of the teacher, of candidates from large to small, of the student.
        count: how many assistants. Default 1.

    Returns:
        Places of the chosen candidates in `accuracies`, from large to small.

    Raises:
        ValueError: fewer candidates than assistants, or a count below 1.

    Example:
        >>> kd.choose_assistants([0.92, 0.91, 0.86, 0.83, 0.79])
        [2]

    Source:
        Mirzadeh et al. 2020, Improved knowledge distillation via teacher assistant.
    """
    candidates = range(1, len(accuracies) - 1)
    if not 1 <= count <= len(candidates):
        raise ValueError(
            f"{count} assistant(s) can't be chosen of {len(candidates)} candidate(s): "
            "accuracies has the teacher's first, the candidates', then the student's."
        )

    def steps(chosen):
        chain = [accuracies[i] for i in (0, *chosen, len(accuracies) - 1)]
        gaps = [abs(a - b) for a, b in itertools.pairwise(chain)]
        return sorted(gaps, reverse=True)

    return list(min(itertools.combinations(candidates, count), key=steps))
