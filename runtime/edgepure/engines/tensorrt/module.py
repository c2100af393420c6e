"""The TensorRT of this machine: ordinary TensorRT, or TensorRT for RTX, whose modules have nearly the same interface.

What differs between their versions is asked of the module (hasattr), never derived from a version number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ...errors import ConfigError, EdgepureError, ProviderError
from ...machine import jetson, nvidia
from ...machine.install import install_line

#: Product, which is also the provider's name -> its Python module. The first that can be imported is taken.
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
#: Messages that a log keeps; a builder that goes wrong may repeat itself thousands of times.
_MOST_MESSAGES = 200


@dataclass(frozen=True)
class TensorRT:
    """One imported TensorRT: ``product`` as in `MODULES`, the module, and its version (``11.4.0.106``)."""

    product: str
    version: str
    module: Any = field(repr=False)

    @property
    def is_rtx(self) -> bool:
        return self.product == "tensorrt-rtx"

    def __str__(self) -> str:
        return f"{NAMES[self.product]} {self.version}"


def import_tensorrt(product: str | None = None) -> TensorRT:
    """The TensorRT to use.

    Args:
        product: ``tensorrt`` or ``tensorrt-rtx``; None takes the first that is installed.

    Raises:
        ConfigError: no such product.
        ProviderError: not installed, with the line that installs it.
    """
    if product is not None and product not in MODULES:
        raise ConfigError(f"unknown TensorRT product {product!r}; choose one of {', '.join(MODULES)}")
    reasons = []
    for name in [product] if product is not None else MODULES:
        try:
            module = import_module(MODULES[name])
        except Exception as error:  # a missing shared library raises more than ImportError
            reasons.append(f"{NAMES[name]} cannot be imported ({_first_line(error)}){_install(name)}")
        else:
            return TensorRT(name, str(getattr(module, "__version__", "unknown")), module)
    raise ProviderError("; ".join(reasons))


def _install(product: str) -> str:
    found, driver = jetson.find(), nvidia.find()
    line = install_line(MODULES[product], found, driver)
    if not line and product == "tensorrt-rtx" and found is None:
        line = "pip install edgepure[rtx]"  # it builds engines without a GPU, too
    return f": {line}" if line else ""


def make_log(trt: TensorRT) -> Any:
    """A TensorRT logger that prints nothing and keeps its errors and warnings, as lists of strings."""
    levels = trt.module.ILogger

    class Log(levels):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            levels.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                kept = self.errors
            elif severity == levels.WARNING:
                kept = self.warnings
            else:
                return
            if len(kept) < _MOST_MESSAGES:
                kept.append(msg)

    return Log()


#: What TensorRT writes into its log, as patterns -> what it means and what to do. The first that fits is taken.
_CAUSES: tuple[tuple[str, str, type[EdgepureError]], ...] = (
    (
        r"out ?of ?memory|cudaErrorMemoryAllocation|insufficient memory|failed to allocate|exceeds? .*memory",
        "there is not enough GPU memory; end what else runs on the GPU, build for smaller batches, or limit the "
        "workspace (--workspace-mb)",
        EdgepureError,
    ),
    (
        r"no space left",
        "a disk is full; free some space",
        EdgepureError,
    ),
    (
        r"insufficient driver|driver version is insufficient|no CUDA-capable device|cudaError ?35|CUDA initialization",
        "the NVIDIA driver is missing, or too old for this TensorRT; `edgepure doctor` shows both",
        ProviderError,
    ),
    (
        r"stdVersionRead|serializ|magic ?tag|plan file|incompatible|not compatible|built (for|with|on) |version mism",
        "the engine was built by another TensorRT or for another GPU; build it again on this device with "
        "`edgepure build BUNDLE`",
        ProviderError,
    ),
    (
        r"no importer|unsupported|not supported|not implemented|could not find any implementation|plugin",
        "this TensorRT has no kernel for a part of the graph; a newer TensorRT may have one, or run the graph in "
        "another precision, or by ONNX Runtime (--provider cuda)",
        ProviderError,
    ),
)


def fault(what: str, trt: TensorRT, log: Any, details: list[str] | None = None) -> EdgepureError:
    """An error in plain words, from what TensorRT has logged since the last one.

    Args:
        what: what failed, ``building the engine of step``.
        trt: whose log it is.
        log: made by `make_log`.
        details: more precise than the log, for example the parser's errors.
    """
    messages = [*(details or ()), *log.errors]
    log.errors.clear()  # a later fault has nothing to do with what was said now
    text = "\n".join(messages)
    said = _shortened(messages[0]) if messages else "it gave no reason"
    for pattern, meaning, kind in _CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{what} failed: {meaning}. {trt} said: {said}")
    return ProviderError(f"{what} failed. {trt} said: {said}")


def _shortened(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= 400 else f"{text[:400]} ..."


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
