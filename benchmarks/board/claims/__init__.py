"""Protocols that try what papers claim, the most worthwhile first."""

import pathlib
import sys

# Protocols use networks and functions of the papers' examples.
sys.path.append(str(pathlib.Path(__file__).parents[3] / "examples"))

from claims import (
    cheng2020_knowledge_points,
    hinton2015_speech,
    kim2016_sequences,
    tang2020_language,
    tang2020_pairs,
    tang2020_partial_kd,
)

PROTOCOLS = {
    module.PROTOCOL.name: module.PROTOCOL
    for module in (
        hinton2015_speech,
        tang2020_pairs,
        cheng2020_knowledge_points,
        tang2020_partial_kd,
        kim2016_sequences,
        tang2020_language,
    )
}
