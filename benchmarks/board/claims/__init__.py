"""Protocols that try what papers claim, the most worthwhile first."""

import pathlib
import sys

# Protocols share networks and measures with the examples of their papers.
sys.path.append(str(pathlib.Path(__file__).parents[3] / "examples"))

from claims import (
    anil2018_codistillation,
    chen2018_darkrank,
    heo2019_boundaries,
    hinton2015_speech,
    kim2018_factors,
    romero2015_fitnets,
    yim2017_fsp,
    you2017_teachers,
    yu2019_recasting,
    zagoruyko2017_attention,
)

PROTOCOLS = {
    module.PROTOCOL.name: module.PROTOCOL
    for module in (
        hinton2015_speech,
        chen2018_darkrank,
        you2017_teachers,
        anil2018_codistillation,
        yu2019_recasting,
        heo2019_boundaries,
        yim2017_fsp,
        romero2015_fitnets,
        zagoruyko2017_attention,
        kim2018_factors,
    )
}
