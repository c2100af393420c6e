"""Calibration of an exported bundle, from images: score norms and SSNI (`calibrate`), precision, tuning, robustness.

Each part reads a bundle and sample images and writes what it found back into the bundle. The package may import
`edgepure_export` and `edgepure`; neither imports it.
"""
