"""``edgepure quantize``: a variant of a bundle in lower precision, if its decisions hold."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepure.cli.options import BundleArgument, DebugOption, JsonOption, ProviderOption, ResizeOption, ThreadsOption
from edgepure.engines.kinds import DEFAULT_PROVIDER, kind_of, providers
from edgepure.errors import ConfigError, ExportError, VerificationError
from edgepure.machine.packages import needs

if TYPE_CHECKING:
    from collections.abc import Mapping


def quantize(
    bundle: BundleArgument,
    precision: Annotated[
        str, typer.Option(metavar="int8|fp8|fp16|bf16", help="Of the variant.", show_default=False)
    ],
    data: Annotated[
        str,
        typer.Option(metavar="DIR|FILE.npz", help="Images to calibrate and to judge with: a folder (with one "
                     "sub-folder per class, if they are labelled) or an .npz with `images` and `labels`; FILE.npz:NAME "
                     "takes another array.", show_default=False),
    ],
    attacked: Annotated[
        str | None,
        typer.Option(metavar="DIR|FILE.npz", help="Attacked images, likewise.", show_default=False),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A preset whose decisions have to hold. May be given several times. Default: "
                     "the bundle's default.", show_default=False),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--for", metavar="PROVIDER", help="The provider that the variant is for. "
                     "Elsewhere than on --provider its speed is not measured. Default: the provider.",
                     show_default=False),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="A layer (or a module and all of its layers) that stays in higher "
                     "precision. May be given several times.", show_default=False),
    ] = None,
    redraws: Annotated[int, typer.Option(min=2, help="Noises that each image is judged with.")] = 5,
    max_flips: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="Share of decisions that may flip beyond what new noise flips.")
    ] = 0.01,
    max_loss: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Accuracy that may be lost, clean and attacked.")
    ] = 0.01,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page with plots and all numbers.", show_default=False),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for partial results. Default: a hidden one beside the bundle.",
                     show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of all draws.")] = 1,
    resize: ResizeOption = False,
    provider: ProviderOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:  # fmt: skip
    """Make a variant of a bundle in lower precision, and put it into the bundle if its decisions hold.

    int8 and fp8 get explicit Q/DQ nodes, with ranges from real trajectories; fp16 and bf16 convert the heavy operators.
    The variant passes if it flips hardly more decisions than new noise does, loses no accuracy, and is faster here. As
    long as it does not, its most sensitive layers are kept in higher precision. If it cannot pass, the bundle stays as
    it was and the exit code is 6. An interrupted run goes on where it was when the same command is given again. Needs
    the onnx package, and no PyTorch: pip install edgepure[calibration].

    Examples:

    \b
      edgepure quantize digits --precision int8 --data images.npz:clean --attacked images.npz:adversarial
      edgepure quantize cifar10 --precision fp16 --for tensorrt --data photos/ --report fp16.html
      edgepure quantize cifar10 --precision bf16 --provider openvino --data photos/
      edgepure classify digits seven.png --precision int8
    """
    from edgepure.bundle.bundle import Bundle
    from edgepure.cli.output import emit_json, note, prepare_file, say
    from edgepure.cli.progress import Progress
    from edgepure.images.dataset import load_labelled

    chosen = _target(target, provider)
    with needs("quantize needs the onnx package", "calibration", ExportError):
        parts: Any = import_module("edgepure_calibration.quantize")
        from ..quantize.report import write_report
    if precision not in ("int8", "fp8", "fp16", "bf16"):
        raise ConfigError(f"--precision {precision!r} is unknown; choose int8, fp8, fp16 or bf16")
    if report is not None:
        prepare_file(report, "--report")
    request = parts.Request(
        precision=precision, target=chosen, presets=tuple(preset or ()), keep=tuple(keep or ()), provider=provider,
        threads=threads, limits=parts.Limits(flips=max_flips, accuracy=max_loss), redraws=redraws, seed=seed,
    )  # fmt: skip
    with Progress("opening the bundle"):
        manifest = Bundle.open(bundle).manifest
    with Progress("reading the images"):
        images = [
            None if source is None else load_labelled(source, manifest.image, manifest.classes, resize=resize)
            for source in (data, attacked)
        ]
    try:
        with Progress(f"making {precision}") as bar:
            found = parts.quantize(
                bundle, request, *images, work=work, on_progress=lambda what, share: bar.update(share, what)
            )
    except (KeyboardInterrupt, SystemExit):
        note("what was measured is kept: the same command goes on from there")
        raise
    if report is not None:
        write_report(report, manifest.name, found.evidence)
    if as_json:
        emit_json({"bundle": str(bundle), "report": None if report is None else str(report), **found.evidence})
    else:
        _print(found.evidence)
        if report is not None:
            say(f"report: {report}")
    if not found:
        note(f"error: the {precision} variant was refused and the bundle is as it was: {'; '.join(found.reasons)}")
        raise typer.Exit(VerificationError.exit_code)
    if not as_json:
        command, engine = ("build", "") if kind_of(chosen).built else ("bench", f" --provider {chosen}")
        say(f"\nnext: edgepure {command} {bundle} --precision {precision}{engine}")


def _target(target: str | None, provider: str) -> str:
    """What the variant is for."""
    row = kind_of(provider)
    wanted = target or row.made_for
    families = [name for name in providers() if kind_of(name).made_for == name]
    if wanted not in families:
        raise ConfigError(f"--for {wanted!r} is unknown; choose one of {', '.join(families)}", code="E-quantize-for")
    if row.built:
        raise ConfigError(
            f"--provider {provider!r}: variants are judged by ONNX Runtime or OpenVINO; give --provider "
            f"{DEFAULT_PROVIDER} and --for {wanted}",
            code="E-quantize-provider",
        )
    return wanted


def _print(evidence: Mapping[str, Any]) -> None:
    from edgepure.cli.output import say, table, verdict

    graphs = evidence["graphs"]
    for graph, made in graphs.items():
        words = []
        if "qdq" in made:
            operators = sum(made["qdq"]["operators"].values())
            words.append(
                f"{operators} operators quantized ({made['qdq']['quantize_nodes']} Q and "
                f"{made['qdq']['dequantize_nodes']} DQ nodes)"
            )
        if "half" in made:
            words.append(f"{sum(made['half']['operators'].values())} operators in 16 bits")
        say(f"{graph}: {', '.join(words)}")
    if evidence["kept"]:
        say(f"kept in higher precision: {', '.join(evidence['kept'])}")
    rows = [
        (gate["preset"], check["name"], f"{check['value']:.4f}", f"{check['limit']:.4f}", verdict(check["passed"]))
        for gate in (evidence["attempts"][-1]["gates"] if evidence["attempts"] else [])
        for check in gate["checks"]
    ]
    if isinstance(evidence["speed"], list):
        least = evidence["limits"]["speed"]
        rows += [
            ("-", f"times faster, batch {s['batch']}", f"{s['ratio']:.2f}", f"> {least:g}", verdict(s["ratio"] > least))
            for s in evidence["speed"]
        ]
    table(("preset", "check", "value", "limit", "verdict"), rows, right=("value", "limit"))
    if not isinstance(evidence["speed"], list):
        say(f"speed {evidence['speed']}")
