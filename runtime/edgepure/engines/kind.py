"""What a row of `kinds` says of an engine, what an engine is asked to open, and what became of trying it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..machine.install import Installation
from ..machine.packages import package_version

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from ..machine.nvidia import Driver
    from .base import Engine


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
