"""``edgepure quantize``: a variant of a bundle in lower precision, if its decisions hold."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepure.cli.groups import grouped
from edgepure.cli.options import BundleArgument, given
from edgepure.engines.kinds import DEFAULT_PROVIDER, kind_of, providers
from edgepure.errors import ConfigError, ExportError, VerificationError
from edgepure.machine.packages import needs

from .shared import DataMeta, OutputOptions, RunOptions, WorkOption, at_work

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(kw_only=True)
class GateOptions:
    """What the variant has to hold to."""

    preset: Annotated[
        list[str] | None,
        given(
            "NAME", "A preset whose decisions have to hold. May be given several times. Default: the bundle's default."
        ),
    ] = None
    redraws: Annotated[int, typer.Option(min=2, help="Noises that each image is judged with.")] = 5
    max_flips: Annotated[
        float,
        typer.Option(
            min=0.0001,
            max=1.0,
            help="Share of decisions that may flip beyond what new noise flips; 0.01 takes at least 299 images. Of a "
            "task: of 1 - agreement of its answers (box agreement, mIoU, cosine).",
        ),
    ] = 0.01
    max_loss: Annotated[
        float,
        typer.Option(
            min=0.0001,
            max=1.0,
            help="Accuracy that may be lost, clean and attacked; 0.01 takes at least 299 labelled images. Of a task: "
            "mIoU, mAP or recall at 1.",
        ),
    ] = 0.01
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of all draws.")] = 1
    certificates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="The certificates.json of `edgepure certify` in fp32: those of images in --data are carried to the "
            "variant, and what they lose is reported.",
            show_default=False,
        ),
    ] = None
    pairs: Annotated[int, typer.Option(min=10, help="Of --certificates: answers of both precisions an image.")] = 1000


@grouped
def quantize(
    bundle: BundleArgument,
    precision: Annotated[str, given("int8|fp8|fp16|bf16", "Of the variant.")],
    data: Annotated[
        str,
        given(
            DataMeta,
            "Images to calibrate and to judge with: a folder (with one sub-folder per class, if they are "
            "labelled) or an .npz with `images` and `labels`; FILE.npz:NAME takes another array. For a task, labels "
            "(and `boxes`) are those of `edgepure evaluate-task`.",
        ),
    ],
    gate: GateOptions,
    run: RunOptions,
    output: OutputOptions,
    attacked: Annotated[str | None, given(DataMeta, "Attacked images, likewise.")] = None,
    target: Annotated[
        str | None,
        given(
            "PROVIDER",
            "The provider that the variant is for. Elsewhere than on --provider its speed is not "
            "measured. Default: the provider.",
            "--for",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        given(
            "LAYER",
            "A layer (or a module and all of its layers) that stays in higher precision. May be given several times.",
        ),
    ] = None,
    work: WorkOption = None,
) -> None:
    """Make a variant of a bundle in lower precision, and put it into the bundle if its decisions hold.

    int8 and fp8 get explicit Q/DQ nodes, with ranges from real trajectories; fp16 and bf16 convert the heavy operators.
    The variant passes if it flips hardly more decisions than new noise does, loses no accuracy, and is faster here. As
    long as it does not, its most sensitive layers are kept in higher precision. If it cannot pass, the bundle stays as
    it was and the exit code is 6. An interrupted run goes on where it was when the same command is given again. Needs
    the onnx package, and no PyTorch: pip install edgepure[calibration].

    Examples:

    \b
      edgepure quantize digits --precision int8 --data images.npz:clean --attacked images.npz:adversarial \
          --max-flips 0.08 --max-loss 0.08
      edgepure quantize digits --precision fp16 --for tensorrt --data photos/ --max-flips 0.08 --report fp16.html
      edgepure quantize digits --precision bf16 --provider openvino --data photos/ --max-flips 0.08
      edgepure classify digits seven.png --precision int8
    """
    from edgepure.cli.output import emit_json, note, say

    from ..provider import ProviderSettings

    chosen = _target(target, run.provider)
    with needs("quantize needs the onnx package", "calibration", ExportError):
        verb: Any = import_module("edgepure_calibration.quantize")
    if precision not in ("int8", "fp8", "fp16", "bf16"):
        raise ConfigError(
            f"--precision {precision!r} is unknown; choose int8, fp8, fp16 or bf16", code="E-quantize-precision"
        )
    settings = verb.QuantizeSettings(
        precision=precision,
        target=chosen,
        presets=tuple(gate.preset or ()),
        keep=tuple(keep or ()),
        limits=verb.Limits(flips=gate.max_flips, accuracy=gate.max_loss),
        redraws=gate.redraws,
        seed=gate.seed,
        certificates=None if gate.certificates is None else str(gate.certificates),
        pairs=gate.pairs,
    )
    kept = f"quantize-{precision}-{chosen}"
    with at_work(kept, bundle, work, run, output.report, data, attacked) as begun:
        images = [begun.data(source) for source in (data, attacked)]
        on = ProviderSettings(run.provider, threads=run.threads, slots=8)
        found = verb.quantize(bundle, settings, *images, provider=on, work=work, on_progress=begun.update)
    if output.report is not None:
        from ..quantize.report import write_report

        write_report(output.report, begun.opened.manifest.name, found.evidence)
    if output.as_json:
        emit_json(
            {"bundle": str(bundle), "report": None if output.report is None else str(output.report), **found.evidence}
        )
    else:
        _print(found.evidence)
        if output.report is not None:
            say(f"report: {output.report}")
    if not found:
        note(f"error: the {precision} variant was refused and the bundle is as it was: {'; '.join(found.reasons)}")
        raise typer.Exit(VerificationError.exit_code)
    if not output.as_json:
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
    for part in (evidence["certificates"] or {"presets": ()})["presets"]:
        kept = len(part["images"]) - part["abstain_now"]
        say(
            f"certificates of {part['preset']}: {kept} of {len(part['images'])} hold in {evidence['precision']}; "
            f"median loss of radius {part['median_lost']:.4f}, most {part['most_lost']:.4f}"
        )
