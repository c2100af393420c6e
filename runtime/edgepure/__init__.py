"""edgepure: diffusion-based adversarial purification on compiled engines, without PyTorch.

>>> import edgepure
>>> with edgepure.load("digits_bundle") as purifier:          # doctest: +SKIP
...     for result in purifier.classify(["seven.png"]):
...         print(result.class_name, result.unet_calls)
"""

import os

import lazy_loader

# From 1.29 on ONNX Runtime reports its sessions, with names and hashes of their models, to its makers over the network
# if this is not set before it is imported. Nothing of a defence is to leave the device.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The public names stand in __init__.pyi, once, for type checkers and for this; each loads when it is first used.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("edgepure")
    return _load(name)
