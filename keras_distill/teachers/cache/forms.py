"""What is kept of a tapped tensor: all numbers, or the top of a prediction."""

from __future__ import annotations

import math

from keras import ops

# Smaller probabilities than e^-30 count as that; larger rests than e^-0.0001 too.
LEAST, MOST = -30.0, -1e-4


class Dense:
    """Every number of a tensor.

    Args:
        dtype: in which it is kept, `"float16"` or `"float32"`.
    """

    temperature = None

    def __init__(self, dtype: str):
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype is 'float16' or 'float32'; got {dtype!r}.")
        self.dtype = dtype

    def parts(self, shape: tuple) -> dict:
        """Give the type and shape, by name, of what is kept of a sample."""
        return {"all": (self.dtype, tuple(shape))}

    def keep(self, tensor) -> dict:
        """Give what is kept of a batch."""
        return {"all": ops.cast(tensor, self.dtype)}

    def restore(self, kept: dict, shape: tuple):
        """Give the batch's tensor."""
        del shape
        return kept["all"]

    def get_config(self) -> dict:
        """Give the arguments."""
        return {"dtype": self.dtype}


class TopK:
    """The largest probabilities at a temperature, and the mass of the rest.

    Logits of the k largest are kept in float16 below the first one's, which costs
    nothing of a gap's precision; the rest's mass as its logarithm. What comes back are
    logits whose softmax at the temperature is, of p = softmax(z / T),

        p_j                            for the k largest
        (1 - sum of those) / (K - k)   for the others

    Args:
        k: classes that are kept.
        temperature: T.
    """

    def __init__(self, k: int, temperature: float):
        self.k, self.temperature = k, temperature

    def parts(self, shape: tuple) -> dict:
        """Give the type and shape, by name, of what is kept of a sample."""
        *lead, classes = shape
        if not 1 <= self.k < classes:
            raise ValueError(
                f"top_k keeps 1 to {classes - 1} of {classes} classes; got {self.k}. "
                "Leave it out to keep all."
            )
        index = "uint16" if classes <= 2**16 else "uint32"
        return {
            "classes": (index, (*lead, self.k)),
            "logits": ("float16", (*lead, self.k)),
            "rest": ("float16", tuple(lead)),
        }

    def keep(self, tensor) -> dict:
        """Give what is kept of a batch of logits `(..., K)`."""
        logits = ops.reshape(ops.cast(tensor, "float32"), (-1, tensor.shape[-1]))
        largest, classes = ops.top_k(logits, self.k)
        classes = ops.cast(classes, "int32")
        softened = logits / self.temperature
        others = _put(softened, classes, ops.full_like(largest, -1e30))
        rest = ops.logsumexp(others, axis=-1) - ops.logsumexp(softened, axis=-1)
        lead = ops.shape(tensor)[:-1]
        kept = {
            "classes": classes,
            "logits": ops.cast(ops.maximum(largest - largest[:, :1], -6e4), "float16"),
            "rest": ops.cast(ops.clip(rest, LEAST, MOST), "float16"),
        }
        return {name: ops.reshape(x, (*lead, *x.shape[1:])) for name, x in kept.items()}

    def restore(self, kept: dict, shape: tuple):
        """Give logits `(..., K)` whose softmax at the temperature is what was kept."""
        count = shape[-1]
        lead = ops.shape(kept["rest"])
        rest = ops.reshape(ops.cast(kept["rest"], "float32"), (-1, 1))
        largest = ops.reshape(ops.cast(kept["logits"], "float32"), (-1, self.k))
        classes = ops.reshape(ops.cast(kept["classes"], "int32"), (-1, self.k))
        inside = ops.log_softmax(largest / self.temperature, axis=-1)
        inside = inside + ops.log1p(-ops.exp(rest))
        outside = ops.repeat(rest - math.log(count - self.k), count, axis=1)
        log_p = _put(outside, classes, inside)
        return ops.reshape(self.temperature * log_p, (*lead, count))

    def get_config(self) -> dict:
        """Give the arguments."""
        return {"k": self.k, "temperature": self.temperature}


def _put(rows, places, values):
    """Set, in each row `(N, K)`, the places `(N, k)` to the values `(N, k)`."""
    numbers = ops.repeat(
        ops.arange(ops.shape(rows)[0])[:, None], places.shape[1], axis=1
    )
    pairs = ops.stack([ops.cast(numbers, "int32"), places], axis=-1)
    pairs = ops.reshape(pairs, (-1, 2))
    return ops.scatter_update(rows, pairs, ops.reshape(values, (-1,)))


def from_config(config: dict) -> Dense | TopK:
    """Make a form from its arguments."""
    return TopK(**config) if "k" in config else Dense(**config)
