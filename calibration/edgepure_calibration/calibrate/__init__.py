"""Score-norm statistics, probes, SSNI reweightings and mask thresholds of a bundle. `calibrate` is the way in."""

from .calibrate import Calibrated, calibrate
from .settings import CalibrateSettings

__all__ = ["CalibrateSettings", "Calibrated", "calibrate"]
