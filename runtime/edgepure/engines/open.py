"""Opening a graph of a bundle, or an ONNX file, on the engine of a provider."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BundleError, ProviderError
from .base import Engine
from .kind import Opening
from .kinds import DEFAULT_PROVIDER, check_kernels, kind_of
from .schema import check_operators

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from ..bundle.entries import GraphEntry


def open_engine(
    bundle: Bundle,
    graph: str,
    provider: str = DEFAULT_PROVIDER,
    *,
    precision: str = "fp32",
    threads: int | None = None,
) -> Engine:
    """One graph of a bundle on an engine.

    Args:
        bundle: the bundle.
        graph, precision: which graph (see `Bundle.graph_path`).
        provider: one of `edgepure.engines.kinds.providers`.
        threads: CPU threads of one call; None: one per core. For the CPU only.

    Raises:
        ProviderError: the provider is unknown, not installed, not active, or has no engine for this device; says what
            is missing. Nothing ever falls back to another provider.
        BundleError: the bundle has no such graph or variant, or the graph cannot be run.
    """
    kind = kind_of(provider)
    path = bundle.graph_path(graph, precision)
    inside = {str(name): entry.precision for name, entry in bundle.manifest.graphs_in(precision).items()}[graph]
    check_kernels(provider, inside)
    check_operators(path)
    engine = kind.open(Opening(kind, path, inside, threads, graph, precision, bundle))
    try:
        _check_signature(path.name, bundle.manifest.graphs[graph], engine)  # type: ignore[index]
    except BundleError:
        engine.close()
        raise
    return engine


def open_graph(
    path: Path, provider: str = DEFAULT_PROVIDER, *, precision: str = "fp32", threads: int | None = None
) -> Engine:
    """One ONNX file on an engine that runs such files.

    Args:
        path: the file; external data is looked up beside it.
        provider: as for `open_engine`, but none whose engines are built from a bundle.
        precision: of the heavy arithmetic in the graph.
        threads: as for `open_engine`.

    Raises:
        ProviderError, BundleError: as `open_engine`.
    """
    kind = kind_of(provider)
    if kind.built:
        raise ProviderError(
            f"provider {provider!r} runs engines that `edgepure build` makes of a bundle, not single ONNX files; open "
            "the graph of a bundle",
            code="E-provider-built",
        )
    check_kernels(provider, precision)
    check_operators(path)
    return kind.open(Opening(kind, path, precision, threads))


def _check_signature(file: str, entry: GraphEntry, engine: Engine) -> None:
    """Raise BundleError if the graph has other inputs or outputs than its entry in the manifest.

    The sizes of outputs are compared when they are there: a graph need not say them.
    """
    for kind, listed, found in (("input", entry.inputs, engine.inputs), ("output", entry.outputs, engine.outputs)):
        wanted = {tensor.name: tensor for tensor in listed}
        if set(wanted) != set(found):
            raise BundleError(
                f"{file} has the {kind}s {', '.join(sorted(found)) or 'none'}, but the manifest lists "
                f"{', '.join(sorted(wanted))}; export the bundle again",
                code="E-bundle-graph-names",
            )
        for name, spec in found.items():
            shape = wanted[name].shape
            same = len(spec.shape) == len(shape) and all(
                have == want or not isinstance(have, int) for have, want in zip(spec.shape, shape, strict=True)
            )
            if spec.dtype != wanted[name].dtype or (kind == "input" and not same):
                raise BundleError(
                    f"{kind} {name!r} of {file} is {spec.dtype} {list(spec.shape)}, but the manifest says "
                    f"{wanted[name].dtype} {list(shape)}; export the bundle again",
                    code="E-bundle-graph-tensor",
                )
