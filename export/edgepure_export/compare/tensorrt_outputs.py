"""Intermediate tensors of a graph on TensorRT, by Polygraphy: it marks them as outputs, builds an engine and runs it.

Not for speed: every call builds an engine. Marked tensors keep TensorRT from fusing across them, as everywhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.engines.tensorrt.module import TENSORRT
from edgepure.errors import ConfigError, ProviderError, words_of

#: Polygraphy takes TensorRT for RTX in place of TensorRT if this is set when it is imported.
_RTX = "POLYGRAPHY_USE_TENSORRT_RTX"


def tensorrt_outputs(
    path: Path, tensors: Sequence[str], feeds: Mapping[str, NDArray[np.float32]], provider: str
) -> dict[str, NDArray[np.generic]]:
    """The values of these tensors.

    Args:
        path: the ONNX graph; its external data lies beside it.
        tensors: names of tensors in it.
        feeds: its inputs, which give the shapes that the engine is built for.
        provider: one whose engines are built, as in `edgepure.engines.tensorrt.module.TENSORRT`.

    Raises:
        ProviderError: Polygraphy or TensorRT is missing, or the engine cannot be built or run.
    """
    polygraphy = _import(provider)
    try:
        with polygraphy.TrtRunner(polygraphy.EngineFromNetwork(*_marked(polygraphy, path, tensors, feeds))) as runner:
            values = runner.infer(dict(feeds))
            return {name: np.array(values[name]) for name in tensors}  # a runner uses its arrays again
    except Exception as error:  # Polygraphy and TensorRT raise classes of their own
        what = f"{provider} cannot show the intermediate tensors of {path.name}"
        raise ProviderError(f"{what}: {words_of(error)}", code="E-provider-build") from error


def _marked(
    polygraphy: Any, path: Path, tensors: Sequence[str], feeds: Mapping[str, NDArray[np.float32]]
) -> tuple[Callable[[], Any], Callable[..., Any]]:
    """The network with its outputs marked, and a configuration as `edgepure build` has it: strongly typed, no TF32."""
    profile = polygraphy.Profile()
    for name, array in feeds.items():
        profile.add(name, min=array.shape, opt=array.shape, max=array.shape)
    network = polygraphy.NetworkFromOnnxPath(str(path), strongly_typed=True)
    return (
        polygraphy.ModifyNetworkOutputs(network, outputs=list(tensors)),
        polygraphy.CreateConfig(tf32=False, profiles=[profile]),
    )


def _import(provider: str) -> Any:
    """Polygraphy's module for this TensorRT."""
    if provider not in TENSORRT:
        raise ConfigError(
            f"{provider!r} is not a TensorRT provider; choose one of {', '.join(TENSORRT)}", code="E-provider-tensorrt"
        )
    wanted = str(int(TENSORRT[provider].builds_anywhere))  # TensorRT for RTX
    if "polygraphy" in sys.modules and os.environ.get(_RTX, "0") != wanted:
        raise ProviderError(
            f"Polygraphy was imported for the other TensorRT; start a new process for {provider}",
            code="E-provider-package",
        )
    os.environ[_RTX] = wanted
    try:
        import polygraphy.backend.trt as module
    except ImportError as error:
        raise ProviderError(
            f"looking inside a TensorRT engine needs Polygraphy, and {error.name or error} cannot be imported; install "
            "it with `pip install edgepure[tensorrt]`",
            code="E-provider-package",
        ) from None
    return module
