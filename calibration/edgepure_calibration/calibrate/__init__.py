"""Score-norm statistics, probes, SSNI reweightings and mask thresholds of a bundle. `calibrate` is the way in."""

from .calibrate import Calibrated, calibrate
from .probes import describe
from .reweighting import fit_linear
from .settings import CalibrateSettings
from .statistics import distribution, reference_sample

__all__ = [
    "CalibrateSettings",
    "Calibrated",
    "calibrate",
    "describe",
    "distribution",
    "fit_linear",
    "reference_sample",
]
