"""The TensorRT of this machine: ordinary TensorRT, or TensorRT for RTX, whose modules have nearly the same interface.

What differs between their versions is asked of the module (hasattr), never derived from a version number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ...errors import ConfigError, EdgepureError, ProviderError, words_of
from ...machine import jetson, nvidia
from ..kind import Kind
from ..kinds import KINDS

#: The rows whose engines TensorRT builds, in the order in which they are tried. "tensorrt-rtx" is TensorRT for RTX.
TENSORRT: dict[str, Kind] = {name: kind for name, kind in KINDS.items() if kind.built}
#: Messages that a log keeps; a builder that goes wrong may repeat itself thousands of times.
_MOST_MESSAGES = 200


@dataclass(frozen=True)
class TensorRT:
    """One imported TensorRT: ``provider`` as in `TENSORRT`, the module, and its version (``11.4.0.106``)."""

    provider: str
    version: str
    module: Any = field(repr=False)

    @property
    def is_rtx(self) -> bool:
        return self.provider == "tensorrt-rtx"

    def __str__(self) -> str:
        return f"{TENSORRT[self.provider].title} {self.version}"


def portable() -> str:
    """The TensorRT that builds engines where it cannot run them; ordinary TensorRT builds only where it runs."""
    return next(name for name, kind in TENSORRT.items() if kind.builds_anywhere)


def check_builder(provider: str | None) -> None:
    """Raise ConfigError for a provider whose engines are not built."""
    if provider is not None and provider not in TENSORRT:
        raise ConfigError(
            f"provider {provider!r} builds no engines; choose one of {', '.join(TENSORRT)}", code="E-build-provider"
        )


def import_tensorrt(provider: str | None = None) -> TensorRT:
    """The TensorRT to use.

    Args:
        provider: ``tensorrt`` or ``tensorrt-rtx``; None takes the first that is installed.

    Raises:
        ConfigError: no such provider.
        ProviderError: not installed, with the line that installs it.
    """
    check_builder(provider)
    reasons = []
    for kind in [TENSORRT[provider]] if provider is not None else TENSORRT.values():
        try:
            module = import_module(kind.module)
        except Exception as error:  # a missing shared library raises more than ImportError
            reasons.append(f"{kind.title} cannot be imported ({words_of(error)}){_install(kind)}")
        else:
            return TensorRT(kind.provider, str(getattr(module, "__version__", "unknown")), module)
    raise ProviderError("; ".join(reasons), code="E-package-tensorrt")


def _install(kind: Kind) -> str:
    board = jetson.find()
    line = kind.install.on(board, nvidia.find())
    if not line and kind.builds_anywhere and board is None:
        line = kind.install.line
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
            return kind(f"{what} failed: {meaning}. {trt} said: {said}", code="E-tensorrt")
    return ProviderError(f"{what} failed. {trt} said: {said}", code="E-tensorrt")


def _shortened(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= 400 else f"{text[:400]} ..."
