"""Whatever is odd: a right number, or an error before the first step that names its cause."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.odd_inputs import CASES, Case, expected_parts, make, make_batch

# What an error may name: the argument, the term, or the loss.
NAMED = re.compile(
    r"\bx\b|\by\b|sample_weight|weight|temperature|label|'odd'|data|layer|inputs|student|"
    r"teacher|loss"
)
# The same examples on each machine, and none kept.
OPTIONS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


def check(case: Case) -> str:
    """Train on a case; return whether it trained or was refused."""
    before = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            distiller, batch = make(case), make_batch(case)
            before = distiller.student.get_weights()
            logs = fit(distiller, batch)
    except (ValueError, TypeError) as error:
        assert NAMED.search(str(error)), error
        if before is not None:
            after = distiller.student.get_weights()
            assert all(map(np.array_equal, before, after)), error
        return "refused"
    assert all(map(np.isfinite, logs.values())), logs
    assert all(np.isfinite(w).all() for w in distiller.student.get_weights())
    same = make(case)
    expected = expected_parts(case, same, *batch)
    again = same.train_on_batch(*batch, return_dict=True)
    for name, value in logs.items():
        np.testing.assert_allclose(float(again[name]), value, rtol=1e-5, err_msg=name)
    half = case.dtype in ("float16", "bfloat16")
    for name, value in expected.items():
        tolerances = {"rtol": 2e-2 if half else 1e-3, "atol": 1e-5}
        np.testing.assert_allclose(logs[name], value, **tolerances, err_msg=name)
    return "trained"


def fit(distiller, batch):
    x, y, weights = batch
    history = distiller.fit(
        x, y, sample_weight=weights, batch_size=len(x) or 1, verbose=0, shuffle=False
    )
    return {name: values[0] for name, values in history.history.items()}


@settings(max_examples=40, phases=[Phase.generate], **OPTIONS)
@given(CASES)
def test_some_odd_inputs(case):
    check(case)


# Of 500, with `--hypothesis-profile many`.
@pytest.mark.long
@settings(**OPTIONS)
@given(CASES)
def test_many_odd_inputs(case):
    check(case)


@pytest.mark.parametrize("net", ["dense", "conv", "sequence"])
@pytest.mark.parametrize("loss", ["SoftTarget", "Hint", "LogitRegression"])
def test_what_is_not_odd_trains(net, loss):
    usual = {"temperature": 1e4, "weight": 1.0, "label_loss": "sparse"}
    # Keras takes no weights (B,) for values of tokens.
    weights = "column" if net == "sequence" else "random"
    kinds = {"labels": "fitting", "weights": weights, "dtype": "float32"}
    case = Case(net, loss, "natural", **usual, **kinds, spoilt="nothing", seed=0)
    assert check(case) == "trained"
