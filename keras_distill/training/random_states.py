"""States of the generators of random numbers that no variable of a model holds."""

import random

import keras
import numpy as np


def random_states() -> dict[str, np.ndarray]:
    """Return the states of Python's, NumPy's and torch's generators by name.

    The first two decide the order of what `fit` shuffles; Keras's random layers draw from
    torch's in addition to their own seeds.
    """
    _, words, gauss = random.getstate()
    _, keys, index, has_normal, normal = np.random.get_state()
    states = {
        "python": np.array(words, "uint32"),
        "python normal": np.array([] if gauss is None else [gauss]),
        "numpy": keys,
        "numpy normal": np.array([index, has_normal, normal]),
    }
    if keras.backend.backend() == "torch":
        import torch

        of_torch = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        states |= {f"torch {i:02d}": x.numpy() for i, x in enumerate(of_torch)}
    return states


def set_random_states(states: dict[str, np.ndarray]) -> None:
    """Set the generators to states that `random_states` returned; early backups have none."""
    if not states:
        return
    words = tuple(map(int, states["python"]))
    normal = states["python normal"].tolist()
    random.setstate((3, words, normal[0] if normal else None))
    index, has_normal, normal = states["numpy normal"].tolist()
    np.random.set_state(
        ("MT19937", states["numpy"], int(index), int(has_normal), normal)
    )
    set_torch_states(states)


def set_torch_states(states: dict[str, np.ndarray]) -> None:
    """Set torch's generators alone, if there are states of them."""
    of_torch = [states[name] for name in sorted(states) if name.startswith("torch")]
    if of_torch:
        import torch

        on_cpu, *on_gpus = map(torch.from_numpy, of_torch)
        torch.set_rng_state(on_cpu)
        torch.cuda.set_rng_state_all(on_gpus)
