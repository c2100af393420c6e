"""The packages behind the engines, and their versions: what a measurement means nothing without."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu")
#: provider -> what people call its engine, and the packages that it may come from.
ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cpu": ("ONNX Runtime", _ONNXRUNTIME),
    "openvino": ("OpenVINO", ("openvino",)),
    "cuda": ("ONNX Runtime", _ONNXRUNTIME),
    "tensorrt": ("TensorRT", ("tensorrt",)),
    "tensorrt-rtx": ("TensorRT for RTX", ("tensorrt-rtx",)),
}


def package_version(*names: str) -> str | None:
    """Of the first of these packages that is installed; None if none is."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def engine_words(provider: str) -> str:
    """The engine behind a provider and its version, for people: ``OpenVINO 2026.4.1``."""
    name, packages = ENGINES[provider]
    found = package_version(*packages)
    return name if found is None else f"{name} {found}"
