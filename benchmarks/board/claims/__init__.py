"""Protocols that try what papers claim, the cheap and telling ones first."""

import pathlib
import sys

# Protocols use functions of the papers' examples.
sys.path.append(str(pathlib.Path(__file__).parents[3] / "examples"))

from claims import (
    ba2014_logits,
    hinton2015_gradients,
    hinton2015_mnist,
    hinton2015_specialists,
    hinton2015_speech,
    hinton2015_temperatures,
    lopes2017_data_free,
    understanding,
)

MODULES = (
    hinton2015_speech,
    hinton2015_gradients,
    hinton2015_specialists,
    understanding,
    ba2014_logits,
    hinton2015_temperatures,
    hinton2015_mnist,
    lopes2017_data_free,
)
PROTOCOLS = {module.PROTOCOL.name: module.PROTOCOL for module in MODULES}
