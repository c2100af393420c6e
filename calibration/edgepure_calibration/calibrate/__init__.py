"""Score-norm statistics, probes, SSNI reweightings and mask thresholds of a bundle. `calibrate` is the way in."""

from .calibrate import Calibrated, Settings, calibrate

__all__ = ["Calibrated", "Settings", "calibrate"]
