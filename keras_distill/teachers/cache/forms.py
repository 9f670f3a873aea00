"""Forms of cached values: all numbers of a tensor, or a prediction's top classes."""

import math

from keras import ops

# Bounds of the logarithm of the rest: below e^-30 or above e^-0.0001 it is clipped.
LEAST, MOST = -30.0, -1e-4


class Dense:
    """All numbers of a tensor, in float16 or float32."""

    def __init__(self, dtype: str):
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be 'float16' or 'float32'; got {dtype!r}.")
        self.dtype = dtype

    def parts(self, shape: tuple) -> dict:
        """Return dtype and shape of each array that is stored of a sample, by name."""
        return {"all": (self.dtype, tuple(shape))}

    def encode(self, tensor) -> dict:
        """Return the arrays to store of a batch, by name."""
        return {"all": ops.cast(tensor, self.dtype)}

    def decode(self, stored: dict, shape: tuple):
        """Return the batch's tensor."""
        del shape
        return stored["all"]

    def get_config(self) -> dict:
        return {"dtype": self.dtype}


class TopK:
    """The largest probabilities at a temperature, and the sum of the others.

    The logits of the k largest are stored in float16 as differences from the largest,
    whose precision does not depend on its size; the sum of the others as its logarithm.
    Decoding returns logits whose softmax at the temperature is, with p = softmax(z / T),

        p_j                            for the k largest
        (1 - sum of those) / (K - k)   for the others
    """

    def __init__(self, k: int, temperature: float):
        self.k, self.temperature = k, temperature

    def parts(self, shape: tuple) -> dict:
        """Return dtype and shape of each array that is stored of a sample, by name."""
        *lead, classes = shape
        if classes < 2:
            raise ValueError(
                "top_k stores the largest of two classes or more, but the teacher returns "
                f"{classes} logit. Leave it out to store what it returns."
            )
        if not 1 <= self.k < classes:
            raise ValueError(
                f"top_k must be 1 to {classes - 1} for {classes} classes; got {self.k}. "
                "Leave it out to store all."
            )
        index = "uint16" if classes <= 2**16 else "uint32"
        return {
            "classes": (index, (*lead, self.k)),
            "logits": ("float16", (*lead, self.k)),
            "rest": ("float16", tuple(lead)),
        }

    def encode(self, tensor) -> dict:
        """Return the arrays to store of a batch of logits `(..., K)`, by name."""
        logits = ops.reshape(ops.cast(tensor, "float32"), (-1, tensor.shape[-1]))
        largest, classes = ops.top_k(logits, self.k)
        classes = ops.cast(classes, "int32")
        softened = logits / self.temperature
        others = _put(softened, classes, ops.full_like(largest, -1e30))
        rest = ops.logsumexp(others, axis=-1) - ops.logsumexp(softened, axis=-1)
        lead = ops.shape(tensor)[:-1]
        stored = {
            "classes": classes,
            "logits": ops.cast(ops.maximum(largest - largest[:, :1], -6e4), "float16"),
            "rest": ops.cast(ops.clip(rest, LEAST, MOST), "float16"),
        }
        return {n: ops.reshape(x, (*lead, *x.shape[1:])) for n, x in stored.items()}

    def decode(self, stored: dict, shape: tuple):
        """Return logits `(..., K)` whose softmax at the temperature is the stored one."""
        count = shape[-1]
        lead = ops.shape(stored["rest"])
        rest = ops.reshape(ops.cast(stored["rest"], "float32"), (-1, 1))
        largest = ops.reshape(ops.cast(stored["logits"], "float32"), (-1, self.k))
        classes = ops.reshape(ops.cast(stored["classes"], "int32"), (-1, self.k))
        inside = ops.log_softmax(largest / self.temperature, axis=-1)
        inside = inside + ops.log1p(-ops.exp(rest))
        outside = ops.repeat(rest - math.log(count - self.k), count, axis=1)
        log_p = _put(outside, classes, inside)
        return ops.reshape(self.temperature * log_p, (*lead, count))

    def get_config(self) -> dict:
        return {"k": self.k, "temperature": self.temperature}


def _put(rows, columns, values):
    """Set the columns `(N, k)` of each row `(N, K)` to the values `(N, k)`."""
    numbers = ops.repeat(
        ops.arange(ops.shape(rows)[0])[:, None], columns.shape[1], axis=1
    )
    pairs = ops.stack([ops.cast(numbers, "int32"), columns], axis=-1)
    pairs = ops.reshape(pairs, (-1, 2))
    return ops.scatter_update(rows, pairs, ops.reshape(values, (-1,)))


def from_config(config: dict) -> Dense | TopK:
    """Create a form from its arguments."""
    return TopK(**config) if "k" in config else Dense(**config)
