"""Protocols that try what papers claim, the cheap and telling ones first."""

import pathlib
import sys

# Protocols use networks and functions of the papers' examples.
sys.path.append(str(pathlib.Path(__file__).parents[3] / "examples"))

from claims import (
    anil2018_codistillation,
    ba2014_logits,
    chen2018_darkrank,
    cheng2020_knowledge_points,
    heo2019_boundaries,
    hinton2015_gradients,
    hinton2015_mnist,
    hinton2015_specialists,
    hinton2015_speech,
    hinton2015_temperatures,
    kim2016_sequences,
    kim2018_factors,
    lopes2017_data_free,
    romero2015_fitnets,
    tang2020_language,
    tang2020_pairs,
    tang2020_partial_kd,
    understanding,
    yim2017_fsp,
    you2017_teachers,
    yu2019_recasting,
    zagoruyko2017_attention,
)

MODULES = (
    hinton2015_speech,
    hinton2015_gradients,
    hinton2015_specialists,
    understanding,
    tang2020_pairs,
    chen2018_darkrank,
    ba2014_logits,
    cheng2020_knowledge_points,
    tang2020_partial_kd,
    you2017_teachers,
    anil2018_codistillation,
    yu2019_recasting,
    hinton2015_temperatures,
    heo2019_boundaries,
    yim2017_fsp,
    romero2015_fitnets,
    zagoruyko2017_attention,
    kim2018_factors,
    kim2016_sequences,
    tang2020_language,
    hinton2015_mnist,
    lopes2017_data_free,
)
PROTOCOLS = {module.PROTOCOL.name: module.PROTOCOL for module in MODULES}
