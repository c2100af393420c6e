"""Calibration of an exported bundle. Nothing is implemented here yet; the package marks the place.

What belongs here: score statistics for SSNI, the mask threshold, the choice of precision (FP16, INT8, FP8),
tuning under a latency budget, and robustness evaluation. Each reads a bundle and sample images and writes
calibration values back into the bundle. It may import `edgepure_export` and `edgepure`; neither imports it.
"""
