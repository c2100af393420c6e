"""From PyTorch networks to a bundle: graphs, the differentiable reference, the bundle writer.

Needs PyTorch and runs on a workstation (`pip install edgepure[export]`). It builds on the runtime package `edgepure`,
which never imports this one.

>>> from edgepure_export import export_bundle
>>> export_bundle(classifier, unet, "bundle", image_size=32, blocks=["layer1", "layer2"])   # doctest: +SKIP
"""

import lazy_loader

import edgepure  # noqa: F401  before ONNX Runtime, whose telemetry it switches off

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
