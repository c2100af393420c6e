"""``edgepure verify``: parity at four levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..machine.packages import extensions, needs
from .options import BgrOption, BundleArgument, DebugOption, JsonOption, ResizeOption, ThreadsOption, given

if TYPE_CHECKING:
    from ..images.load import Order, Resize
    from ..parity.checks import OutputCheck
    from ..parity.levels import Level
    from ..parity.side_by_side import ImageSet
    from ..parity.verification import Verification, Verifications
    from ..types import Progress as Report


def verify(
    bundle: BundleArgument,
    providers: Annotated[
        str,
        typer.Option(
            "--provider",
            "--providers",
            metavar="A,B,...",
            help="Inference engines: cpu, openvino, cuda, "
            "tensorrt, tensorrt-rtx. The first one (with the first precision) is the reference of the others. "
            "One that is not active is an error.",
        ),
    ] = "cpu",
    precision: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="fp32, fp16, bf16, int8, fp8: the graphs that were exported, or variants "
            "that `edgepure quantize` made.",
        ),
    ] = "fp32",
    against: Annotated[
        str | None, given("torch", "Compare with the networks in PyTorch instead of the recorded vectors.")
    ] = None,
    classifier: Annotated[
        str | None,
        given(
            "SOURCE",
            "With --against torch: the classifier, as `edgepure export` takes it. Default: what the "
            "bundle says it comes from.",
        ),
    ] = None,
    diffusion: Annotated[str | None, given("SOURCE", "The diffusion model, likewise.")] = None,
    backbone: Annotated[
        str | None, given("SOURCE", "The network that is tapped for the mask where there is no classifier, likewise.")
    ] = None,
    task: Annotated[str | None, given("SOURCE", "The task's network, likewise.")] = None,
    preset: Annotated[
        list[str] | None,
        given(
            "NAME",
            "Presets to compare; may be given several times. Default: all recorded ones; of --data and "
            "--attacked, the bundle's default.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        given(
            "FILE.npz|DIR",
            "Clean images to compare decisions on: an .npz with `images` (and `labels`; FILE.npz:NAME "
            "takes another array) or a folder.",
        ),
    ] = None,
    attacked: Annotated[Path | None, given("FILE.npz|DIR", "Attacked images, likewise.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Images of each set at most, drawn evenly from its classes.")] = 256,
    resize: ResizeOption = False,
    bgr: BgrOption = False,
    graphs_only: Annotated[
        bool, typer.Option("--graphs-only", help="Level 1 alone: leave out the purifications.")
    ] = False,
    report: Annotated[Path | None, given("FILE.html", "Write a report with plots and pictures.")] = None,
    content_hash: Annotated[
        str | None,
        typer.Option(
            metavar="SHA256",
            help="Refuse a bundle with another content hash (`edgepure inspect` prints it) than this one, which you "
            "got over a channel that you trust: it covers presets, votes and cards too.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Prove that a bundle computes here what PyTorch computes: graphs, rows, images, decisions.

    Checks the SHA-256 of every file, then compares at four levels: every graph; the state after every row of a
    purification with replayed noise; purified image and mask; the labels. The reference is what PyTorch recorded at
    export, or PyTorch itself (--against torch), or the first of several providers and precisions. If a graph differs,
    the first layer that does is named. Exit code 3 if the bundle is damaged, 6 if a result differs by more than its
    tolerance.

    Examples:

    \b
      edgepure verify digits
      edgepure verify digits --against torch --classifier python:models.py:load_classifier \\
          --diffusion python:models.py:load_unet --data clean.npz --attacked attacked.npz --report parity.html
      edgepure verify cifar10 --provider cuda --precision fp32,fp16 --data clean.npz
    """
    from ..bundle.bundle import Bundle
    from ..errors import BundleError, VerificationError
    from .output import emit_json, note
    from .outputs import prepare_file
    from .progress import Progress

    if against not in (None, "torch"):
        raise ConfigError(f"--against {against!r} is unknown; the only choice is torch", code="E-verify-against")
    networks = {"classifier": classifier, "diffusion": diffusion, "backbone": backbone, "task": task}
    if against is None and any(networks.values()):
        raise ConfigError(
            "--classifier, --diffusion, --backbone and --task name what to compare with; add --against torch",
            code="E-verify-networks",
        )
    if content_hash is not None and (other := Bundle.open(bundle).content_hash) != content_hash.lower():
        raise BundleError(
            f"{bundle} has the content hash {other}, expected {content_hash}: it is not the bundle that was meant",
            code="E-bundle-other",
        )
    prepare_file(report, "--report", (data, attacked))
    engines = [(p, q) for p in _listed(providers, "--providers") for q in _listed(precision, "--precision")]
    with Progress("checking the hashes") as bar:
        images = _images(bundle, data, attacked, limit, resize, "bgr" if bgr else "rgb")
        if images and against is None and len(engines) == 1 and engines[0][1] != "fp32":
            engines.insert(0, (engines[0][0], "fp32"))  # what its decisions are to be compared with
        run = _Run(bundle, engines, threads, not graphs_only, images, preset, bar.update)
        found = run.torch(networks) if against else run.engines()
        if report is not None:
            from ..parity.report import write_report

            write_report(report, found.each)
    if as_json:
        emit_json(found.each[0].to_json() if len(found.each) == 1 else found.to_json())
    else:
        for one in found.each:
            _print(one)
        if report is not None:
            note(f"report: {report}")
    if not found:
        for one in found.each:
            if not one:
                note(f"error: {one}; do not use this bundle with this engine")
        raise typer.Exit(VerificationError.exit_code)


class _Run:
    """The ways to verify, with what they share."""

    def __init__(
        self,
        bundle: Path,
        engines: Sequence[tuple[str, str]],
        threads: int | None,
        pipelines: bool,
        images: Sequence[ImageSet],
        presets: Sequence[str] | None,
        report: Report,
    ) -> None:
        self.bundle, self.all_engines, self.report = bundle, engines, report
        self.threads, self.pipelines, self.images, self.presets = threads, pipelines, images, presets

    def torch(self, networks: Mapping[str, str | None]) -> Verifications:
        """Every engine against PyTorch."""
        from ..parity.verification import Verifications

        with needs("--against torch needs PyTorch and ONNX", "export"):
            compare = _brought("torch")
        count, found = len(self.all_engines), []
        for number, (provider, precision) in enumerate(self.all_engines):
            found.append(
                compare(
                    self.bundle, provider, precision=precision, **networks,
                    threads=self.threads, pipelines=self.pipelines, images=self.images, presets=self.presets,
                    on_progress=lambda share, what, n=number: self.report((n + share) / count, what),
                )
            )  # fmt: skip
        return Verifications(tuple(found))

    def engines(self) -> Verifications:
        """The first engine with the recorded vectors, the others with the first."""
        from ..parity.verification import Verifications
        from ..parity.verify import verify_engines

        found = verify_engines(
            self.bundle, self.all_engines, threads=self.threads, pipelines=self.pipelines, images=self.images,
            presets=self.presets, on_progress=self.report,
        )  # fmt: skip
        return Verifications(tuple(self._with_findings(one, number) for number, one in enumerate(found.each)))

    def _with_findings(self, found: Verification, number: int) -> Verification:
        """Where failing graphs begin to differ, if the package that can tell is installed."""
        if found.levels[0]:
            return found
        try:
            find_layers = _brought("find-layers")
        except ImportError:
            return replace(found, notes=(*found.notes, "install edgepure[export] to find the first layer that differs"))
        from ..bundle.bundle import Bundle

        self.report(1.0, "looking for the layer")
        reference = self.all_engines[0] if number > 0 else None
        findings = find_layers(Bundle.open(self.bundle, verify=False), found, reference=reference, threads=self.threads)
        hint = () if findings else ("compare with --against torch to find the first layer that differs",)
        return replace(found, findings=findings, notes=(*found.notes, *hint))


def _print(found: Verification) -> None:
    from .output import say, size, table, verdict

    say(f"{found.bundle}: {found.files} files, {size(found.bytes)}, all hashes match")
    say(f"{found.precision} on {found.provider}, compared with {found.reference}\n")
    table(
        ("what", "output", "max error", "allowed", "used", "verdict"),
        (
            (c.subject, c.quantity, f"{c.max_error:.2e}", f"{c.tolerance:.2e}", _used(c), verdict(bool(c)))
            for level in found.levels
            for c in level.checks
        ),
        right=("max error", "allowed", "used"),
    )
    say("used: the share of its tolerance, of the largest error or of the relative L2 norm, whichever is more")
    say("")
    for level in found.levels:
        for text in _stories(level):
            say(text)
        for text in level.missing:
            say(f"{level.title}: {text}")
    for text in (*found.notes, *(str(finding) for finding in found.findings)):
        say(text)
    say(f"\n{found}\n")


def _used(check: OutputCheck) -> str:
    from ..report.numerals import percent

    return f"{percent(check.used)} %" if check.used < float("inf") else "-"


def _stories(level: Level) -> list[str]:
    """Trajectories and decisions in words; what the few recorded images decide in one sentence."""
    from ..parity.decisions import LabelFlips
    from ..parity.drift import Drift
    from ..parity.side_by_side import SELF_TEST
    from ..parity.tasks import TaskAgreement

    stories = [str(part) for part in level.parts if isinstance(part, Drift | TaskAgreement)]
    decisions = [part for part in level.parts if isinstance(part, LabelFlips)]
    few = [part for part in decisions if part.data == SELF_TEST and part]
    stories += [str(part) for part in decisions if part.data != SELF_TEST or not part]
    if few:
        flips, labels = sum(part.flips for part in few), sum(part.images for part in few)
        stories.append(
            f"self-test: {flips} of {labels} labels flip, of {few[0].images} images with each of {len(few)} presets: "
            "too few to say how often decisions flip; give --data for that"
        )
    return stories


def _listed(text: str, option: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(names):
        raise ConfigError(f"{option} {text!r}: expected names separated by commas", code="E-verify-names")
    return names


def _images(
    bundle: Path, data: Path | None, attacked: Path | None, limit: int, resize: Resize, order: Order
) -> list[ImageSet]:
    if data is None and attacked is None:
        return []
    from ..bundle.bundle import Bundle
    from ..images.dataset import load_labelled
    from ..parity.side_by_side import ImageSet

    manifest = Bundle.open(bundle, verify=False).manifest
    sets = []
    for name, path in (("clean", data), ("attacked", attacked)):
        if path is not None:
            if manifest.task is None:
                found = load_labelled(path, manifest.image, manifest.classes, resize=resize, order=order)
            else:  # what is true of them is not asked here
                found = load_labelled(path, manifest.task_image, (), resize=resize, order=order)
            found = found.take(min(limit, len(found)))
            sets.append(ImageSet(name, found.images, found.labels))
    return sets


def _brought(name: str) -> Callable[..., Any]:
    """What another package brings to this verb.

    Raises:
        ImportError: none does, or what it needs is not installed.
    """
    point = extensions("edgepure.verify").get(name)
    if point is None:
        raise ImportError("the part of edgepure that exports", name="the part of edgepure that exports")
    part: Callable[..., Any] = point.load()
    return part
