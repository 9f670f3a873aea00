"""Cost and accuracy of each exit of a network."""

from keras_distill.analysis.cost import cost
from keras_distill.analysis.wrong import wrong
from keras_distill.data import Samples
from keras_distill.distillers.self_distiller import SelfDistiller


def exits(distiller: SelfDistiller, samples: Samples) -> list[dict]:
    """Return accuracy and cost of each exit, from the first to the deepest.

    Args:
        distiller: a trained distiller.
        samples: the samples to evaluate on.

    Returns:
        One row per exit, for `kd.analysis.table`.

    Example:
        >>> distiller = kd.SelfDistiller(net, ["stack1", "stack2"])
        >>> rows = kd.analysis.exits(distiller, digits.test)
        >>> print(kd.analysis.table(rows))
    """
    rows = []
    for name in distiller.student.output:
        model = distiller.exit(name)
        costs = cost(model)
        rows.append(
            {
                "exit": name,
                "accuracy %": f"{100 - 100 * wrong(model, samples).mean():.2f}",
                "parameters": costs.parameters,
                "multiplications": costs.multiplications,
            }
        )
    return rows
