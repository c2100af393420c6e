"""``edgepure build``: TensorRT engines of a bundle, ahead of time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..engines.kinds import KINDS
from .bench import parse_sizes
from .options import BundleArgument, DebugOption, JsonOption, PrecisionOption, given

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from ..engines.tensorrt.options import BuildOptions

#: Who builds engines.
BUILDERS = tuple(name for name, kind in KINDS.items() if kind.built)


def build(
    bundle: BundleArgument,
    precision: PrecisionOption = "fp32",
    batch: Annotated[
        str, typer.Option(metavar="N,N,...", help="Batch sizes; the largest bounds the images that share a UNet call.")
    ] = "1,4,8",
    graph: Annotated[
        list[str] | None, given("NAME", "Only this graph. May be given several times. Default: all.")
    ] = None,
    provider: Annotated[
        str | None, given("|".join(BUILDERS), "Default: the first that is installed and can build here.")
    ] = None,
    target: Annotated[
        str | None,
        given(
            "SM,SM,...",
            "GPUs to build for instead of the one here, for example sm86,sm89. Needs TensorRT for RTX, but no GPU.",
        ),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Engines that later versions of TensorRT load, too.")
    ] = False,
    timing_cache: Annotated[
        Path | None, given("FILE", "Keep the builder's measurements here; they make the next build faster.")
    ] = None,
    workspace_mb: Annotated[
        int | None,
        given(
            "MIB",
            "Limit of the builder's scratch memory on the GPU. Default: half of what is free on a Jetson,"
            " TensorRT's own limit elsewhere.",
            min=1,
        ),
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Let fp32 matrices be computed with 10 bits of mantissa: faster, less exact.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Build even the engines that are there already.")] = False,
    print_trtexec: Annotated[
        bool, typer.Option("--print-trtexec", help="Print the commands of NVIDIA's own tool instead of building.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Build the TensorRT engines of a bundle for this device, into its folder engines/.

    An engine that is there already is kept as long as the graph, its weights, TensorRT, the GPU and the options are the
    same. Nothing is ever built while images are waiting: `--provider tensorrt` needs engines that are there.

    Examples:

    \b
      edgepure build digits --batch 1,4,8
      edgepure build cifar10 --precision fp16 --batch 1,8 --timing-cache ~/.cache/tensorrt.cache
      edgepure build digits --provider tensorrt-rtx --target sm86,sm89
      edgepure build digits --graph step --print-trtexec
    """
    from ..bundle.bundle import Bundle
    from ..engines.tensorrt.build import build_engines
    from ..engines.tensorrt.options import BuildOptions, check_batches
    from .output import emit_json, say, size, table
    from .outputs import prepare_file
    from .progress import Progress

    prepare_file(timing_cache, "--timing-cache")
    sizes = check_batches(parse_sizes(batch))
    targets = [part.strip() for part in target.split(",")] if target is not None else []
    with Progress("opening the bundle"):
        opened = Bundle.open(bundle)
    if print_trtexec:
        options = BuildOptions(sizes, tuple(targets), version_compatible, timing_cache, workspace_mb, tf32)
        commands = _commands(opened, precision, graph, provider, options)
        if as_json:
            emit_json({"commands": commands})
        else:
            for line in commands.values():
                say(line)
        return
    with Progress("building engines") as bar:
        built = build_engines(
            opened,
            precision,
            sizes,
            graphs=graph,
            provider=provider,
            targets=targets,
            version_compatible=version_compatible,
            timing_cache=timing_cache,
            workspace_mb=workspace_mb,
            tf32=tf32,
            force=force,
            on_progress=bar.update,
        )
    if as_json:
        emit_json({"bundle": opened.manifest.name, "engines": [engine.to_dict() for engine in built]})
        return
    key = built[0].key
    where = f"for {', '.join(key.targets)}" if key.targets else f"for {key.machine.gpu}"
    say(f"{opened.manifest.name}: {key.provider} {key.version} {where}, batches {', '.join(map(str, key.batches))}")
    table(
        ("graph", "precision", "size", "time", "file"),
        (
            (e.graph, e.precision, size(e.bytes), "kept" if e.reused else f"{e.seconds:.1f} s", e.path)
            for e in built
        ),
        right=("size", "time"),
    )  # fmt: skip


def _commands(
    bundle: Bundle, precision: str, graphs: list[str] | None, provider: str | None, options: BuildOptions
) -> dict[str, str]:
    """A command for each graph. Needs neither TensorRT nor a GPU."""
    from ..engines.tensorrt.build import chosen_graphs
    from ..engines.tensorrt.trtexec import trtexec_command

    rtx = KINDS[provider].builds_anywhere if provider in KINDS else bool(options.targets)
    return {
        name: trtexec_command(bundle.path / entry.file, entry, options, Path(f"{name}.{entry.precision}.plan"), rtx=rtx)
        for name, entry in chosen_graphs(bundle, precision, graphs).items()
    }
