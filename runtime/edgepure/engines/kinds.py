"""One row an engine: what the rest of edgepure knows of an engine that it has not opened.

Doctor, help texts, the checks of a bundle's variants, quantization and version lines read these rows, so an engine is
one row and one file. Another package adds an engine by an entry point of the group ``edgepure.engines`` that names a
`Kind` (CONTRIBUTING, "Adding an engine"). Nothing here imports an engine before it is opened or tried.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ProviderError, words_of
from ..machine.install import Installation
from ..machine.packages import extensions
from .kind import Kind, Scheme

if TYPE_CHECKING:
    from ..bundle.manifest import Manifest

#: The entry points by which other packages add engines.
GROUP = "edgepure.engines"
#: The provider that is taken where none is named.
DEFAULT_PROVIDER = "cpu"
#: Both bring the module `onnxruntime`.
ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu")

_INT8 = (Scheme(),)
_FP8 = (Scheme("FLOAT8E4M3FN", "FLOAT8E4M3FN"),)
_UINT8 = Scheme("UINT8", "INT8", outputs=frozenset({"Conv"}), int32_bias=True, kernel="direct")

_CPU = Kind(
    provider="cpu",
    title="ONNX Runtime",
    opens="edgepure.engines.onnxruntime:open_graph",
    note="ONNX Runtime",
    packages=ONNXRUNTIME,
    module="onnxruntime",
    execution_provider="CPUExecutionProvider",
    install=Installation("pip install edgepure[cpu]"),
    probes="edgepure.engines.onnxruntime:probe",
    any_size=True,
    takes_variants=True,
    lacks={
        "bf16": "ONNX Runtime has no bfloat16 convolution for the CPU; "
        "choose precision fp32 or int8, or run it on the provider openvino or tensorrt"
    },
    # ONNX Runtime computes a convolution whose weights have zero point 0 directly, and one with another zero point as a
    # matrix product, for which it uses the matrix units (AMX) of processors that have them. The result is the same.
    schemes={"int8": (_UINT8, replace(_UINT8, conv_weight_zero=-1, kernel="matrix product")), "fp8": _FP8},
)
_OPENVINO = Kind(
    provider="openvino",
    title="OpenVINO",
    opens="edgepure.engines.openvino:open_graph",
    note="on the CPU too",
    packages=("openvino",),
    module="openvino",
    install=Installation("optional, for its bf16 and int8 on the CPU: pip install edgepure[openvino]", jetson=""),
    probes="edgepure.engines.openvino:probe",
    lacks={
        "fp8": "OpenVINO has no float8 kernels for the CPU; choose precision fp32, bf16 or int8, or run it on TensorRT"
    },
    schemes={"int8": _INT8},
    unquantized="bf16",
)
_CUDA = Kind(
    provider="cuda",
    title="ONNX Runtime",
    opens="edgepure.engines.gpu.onnxruntime:open_graph",
    device="gpu",
    packages=ONNXRUNTIME,
    module="onnxruntime",
    execution_provider="CUDAExecutionProvider",
    install=Installation(
        "pip uninstall onnxruntime, then pip install edgepure[cuda]",
        jetson="pip uninstall onnxruntime, then the onnxruntime-gpu wheel of the Jetson AI Lab index ({wheels}); that "
        "of PyPI is not for Jetson",
        gpu=True,
        python=(3, 11),
    ),
    probes="edgepure.engines.gpu.onnxruntime:probe",
    takes_variants=True,
    lends_variants=True,
    lacks={
        "bf16": "ONNX Runtime opens no graph with "
        "bfloat16 convolutions of operator set 20; choose precision fp16 or fp32, or run it on TensorRT"
    },
    schemes={"int8": _INT8, "fp8": _FP8},
    unquantized="fp16",
)
_TENSORRT = Kind(
    provider="tensorrt",
    title="TensorRT",
    opens="edgepure.engines.tensorrt.engine:open_built",
    device="gpu",
    packages=("tensorrt",),
    module="tensorrt",
    install=Installation(
        "pip install edgepure[tensorrt]",
        # TensorRT and CUDA of a Jetson come with its system and are seen by the system's Python only.
        jetson="sudo apt install nvidia-jetpack, then a virtual environment made with `python3 -m venv "
        "--system-site-packages`",
        gpu=True,
    ),
    probes="edgepure.engines.tensorrt.probe:probe_kind",
    built=True,
    takes_variants=True,
    lends_variants=True,
    schemes={"int8": _INT8, "fp8": _FP8},
    unquantized="fp16",
)
_TENSORRT_RTX = replace(
    _TENSORRT,
    provider="tensorrt-rtx",
    title="TensorRT for RTX",
    packages=("tensorrt-rtx",),
    module="tensorrt_rtx",
    install=Installation("pip install edgepure[rtx]", jetson="", gpu=True),  # it has no engines for Orin and Thor
    builds_anywhere=True,
    family="tensorrt",
)

#: The rows of edgepure's own engines by provider, in the order in which people read them.
KINDS: dict[str, Kind] = {kind.provider: kind for kind in (_CPU, _OPENVINO, _CUDA, _TENSORRT, _TENSORRT_RTX)}


def providers() -> tuple[str, ...]:
    """Everything that may be asked for: edgepure's own engines, then those of other packages. Imports none."""
    return (*KINDS, *(name for name in extensions(GROUP) if name not in KINDS))


def kind_of(provider: str) -> Kind:
    """The row of a provider.

    Raises:
        ProviderError: there is none of that name, or its package cannot be imported or declares something else.
    """
    if provider in KINDS:
        return KINDS[provider]
    point = extensions(GROUP).get(provider)
    if point is None:
        raise ProviderError(
            f"unknown provider {provider!r}; choose one of {', '.join(providers())}", code="E-provider-unknown"
        )
    try:
        kind = point.load()
    except Exception as error:  # somebody else's module raises anything
        raise ProviderError(
            f"provider {provider!r}: {point.value} cannot be imported ({type(error).__name__}: {words_of(error)})",
            code="E-provider-extension",
        ) from None
    if not isinstance(kind, Kind) or kind.provider != provider:
        raise ProviderError(
            f"provider {provider!r}: {point.value} is not an `edgepure.engines.Kind` of that name; its package "
            f"declares it under {GROUP}",
            code="E-provider-extension",
        )
    return kind


def help_words() -> str:
    """The providers for a help text: ``cpu (ONNX Runtime), openvino (on the CPU too), cuda, ...``. Those of other
    packages are not looked for: that takes longer than all the rest of a help text."""
    words = [f"{name} ({kind.note})" if kind.note else name for name, kind in KINDS.items()]
    return f"{', '.join(words)}, or one of another package (`edgepure doctor` lists them)"


def engine_words(provider: str) -> str:
    """The engine behind a provider and its version, for people: ``OpenVINO 2026.4.1``."""
    kind = kind_of(provider)
    version = kind.version()
    return kind.title if version is None else f"{kind.title} {version}"


def check_kernels(provider: str, precision: str) -> None:
    """Refuse a precision that an engine cannot compute in.

    Raises:
        ProviderError: it has no kernels for it.
    """
    lacks = kind_of(provider).lacks
    if precision in lacks:
        raise ProviderError(
            f"the {precision} variant cannot run on the provider {provider}: {lacks[precision]}",
            code="E-provider-kernels",
        )


def check_variant(manifest: Manifest, precision: str, provider: str) -> None:
    """Refuse a variant on an engine that it was not made for, or that has no kernels for it.

    ONNX Runtime's CPU wants other Q/DQ nodes than the others do, those with zero points are nothing for a GPU, and
    the bf16 that stands between OpenVINO's is nothing for ONNX Runtime's CPU.

    Raises:
        ProviderError: the variant cannot run on this engine, or there is no such engine.
        ConfigError, BundleError: as `Manifest.graphs_in`.
    """
    graphs = manifest.graphs_in(precision)
    check_kernels(provider, precision)
    kind = kind_of(provider)
    for made_for in {entry.target for entry in graphs.values() if entry.target not in (None, kind.made_for)}:
        maker = KINDS.get(str(made_for))
        if not kind.takes_variants or maker is None or not maker.lends_variants:
            title = f"{maker.title} ({made_for})" if maker is not None else str(made_for)
            raise ProviderError(
                f"the {precision} variant of {manifest.name!r} was made for {title} and cannot run on {provider!r}; "
                f"make it anew with `edgepure quantize BUNDLE --precision {precision} --for {kind.made_for} --data "
                "IMAGES`",
                code="E-provider-variant",
            )
