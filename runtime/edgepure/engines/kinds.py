"""One row an engine: what the rest of edgepure knows of an engine that it has not opened.

Doctor, help texts, the checks of a bundle's variants, quantization and version lines read these rows, so an engine is
one row and one file. Another package adds an engine by an entry point of the group ``edgepure.engines`` that names a
`Kind` (CONTRIBUTING, "Adding an engine"). Nothing here imports an engine before it is opened or tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ProviderError
from ..machine.install import Installation
from ..machine.packages import extensions, package_version

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from ..bundle.manifest import Manifest
    from ..machine.nvidia import Driver
    from .base import Engine

#: The entry points by which other packages add engines.
GROUP = "edgepure.engines"
#: The provider that is taken where none is named.
DEFAULT_PROVIDER = "cpu"
#: Both bring the module `onnxruntime`.
ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class Scheme:
    """How an engine wants its Q/DQ nodes.

    Attributes:
        activations: type of the activations. UINT8 has a zero point, the others are symmetric.
        weights: type of the weights.
        outputs: types of operators whose result is quantized, too. ONNX Runtime's CPU has integer convolutions only
            with an integer output (and matrix products with either); TensorRT wants the inputs alone.
        int32_bias: the bias as int32 in units of the accumulator; TensorRT takes it as a float.
        conv_weight_zero: zero point of the weights of convolutions. The weights are moved by it, so the numbers that
            they stand for, and the result, stay the same.
        kernel: what people call the kernel that this makes the engine take, where there are several.
    """

    activations: Literal["UINT8", "INT8", "FLOAT8E4M3FN"] = "INT8"
    weights: Literal["INT8", "FLOAT8E4M3FN"] = "INT8"
    outputs: frozenset[str] = frozenset()
    int32_bias: bool = False
    conv_weight_zero: int = 0
    kernel: str = ""


@dataclass(frozen=True)
class Opening:
    """What an engine is asked to open.

    Attributes:
        kind: the row of the provider.
        path: the ``.onnx`` file; external data is looked up beside it.
        precision: of the heavy arithmetic in this graph.
        threads: CPU threads of one call; None: one per core.
        graph, variant: name of the graph, and the precision that was asked of the bundle; the variants leave some
            graphs as they are.
        bundle: None where a file is opened that belongs to none.
    """

    kind: Kind
    path: Path
    precision: str = "fp32"
    threads: int | None = None
    graph: str = ""
    variant: str = "fp32"
    bundle: Bundle | None = None


@dataclass(frozen=True)
class Probe:
    """What became of an attempt to use an engine here.

    Attributes:
        version: None if it is not installed.
        works: it ran a graph.
        builds: it builds engines, which some do where they cannot run.
        detail: why it does not work; of one that does, what else is worth knowing.
        installable: the line that installs it would help.
    """

    version: str | None
    works: bool
    builds: bool = False
    detail: str = ""
    installable: bool = True


@dataclass(frozen=True)
class Kind:
    """The row of an engine.

    Attributes:
        provider: its name in the API, on the command line and in manifests.
        title: what people call it.
        opens: from an `Opening` to an `Engine`; the function, or ``module:name`` of it.
        device: where it computes, ``cpu`` or ``gpu``; or anything else that people would say.
        note: what a help text says of it.
        packages: the distributions that it may come from; the one that Python imports counts.
        module: the Python module that must be importable.
        execution_provider: ONNX Runtime's name of it.
        install: how it is installed.
        probes: tries it here, from its row and the NVIDIA driver to a `Probe`; as ``opens``. None: the doctor opens a
            graph of one node and runs it.
        any_size: it runs the graph ``step_any``, whose height and width are open.
        built: it runs engines that `edgepure build` made of a bundle, and no ONNX files.
        builds_anywhere: it builds engines without the device that runs them.
        family: the provider whose variants it runs; empty: its own.
        takes_variants, lends_variants: it also runs variants that were made for others; others run those that were made
            for it.
        lacks: precisions that it has no kernels for, and what to say.
        schemes: how it wants the Q/DQ nodes of int8 and fp8; where there are several, the fastest one is measured.
        unquantized: what is not quantized in such a variant computes in this precision.
    """

    provider: str
    title: str
    opens: str | Callable[[Opening], Engine]
    device: str = "cpu"
    note: str = ""
    packages: tuple[str, ...] = ()
    module: str = ""
    execution_provider: str = ""
    install: Installation = field(default_factory=Installation)
    probes: str | Callable[[Kind, Driver], Probe] | None = None
    any_size: bool = False
    built: bool = False
    builds_anywhere: bool = False
    family: str = ""
    takes_variants: bool = False
    lends_variants: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    schemes: Mapping[str, tuple[Scheme, ...]] = field(default_factory=dict)
    unquantized: Literal["fp32", "fp16", "bf16"] = "fp32"

    @property
    def made_for(self) -> str:
        """The provider that its variants are made for."""
        return self.family or self.provider

    def version(self) -> str | None:
        """Of the installed package; None if there is none."""
        return package_version(*self.packages) if self.packages else None

    def open(self, opening: Opening) -> Engine:
        """Open a graph."""
        engine: Engine = _resolved(self.opens)(opening)
        return engine

    def probe(self, driver: Driver) -> Probe | None:
        """Try it in its own way; None if it has none."""
        if self.probes is None:
            return None
        found: Probe = _resolved(self.probes)(self, driver)
        return found


def _resolved(function: Any) -> Any:
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


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
            f"provider {provider!r}: {point.value} cannot be imported ({type(error).__name__}: {error})",
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
