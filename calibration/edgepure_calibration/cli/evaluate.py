"""``edgepure evaluate``: attack a bundle, and count what is still decided right."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepure.cli.options import (
    BundleArgument,
    DebugOption,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    ResizeOption,
    SlotsOption,
    ThreadsOption,
    radius,
)
from edgepure.errors import ConfigError
from edgepure.files.locks import remove_work_folder
from edgepure.machine.packages import needs

if TYPE_CHECKING:
    from ..evaluate import Evaluation


def evaluate(
    bundle: BundleArgument,
    data: Annotated[
        str, typer.Option(metavar="DIR|FILE.npz", help="Labelled images: a sub-folder per class, or an .npz with "
                          "`images` and `labels`; FILE.npz:NAME takes another array.", show_default=False),
    ],
    preset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A preset of the bundle. May be given several times. "
                                       "Default: the bundle's own default.", show_default=False),
    ] = None,
    attack: Annotated[
        str, typer.Option(metavar="NAME,NAME,...", help="transfer, bpda, surrogate, pgd, pgd-small-norm, apgd-ce, "
                          "apgd-dlr, apgd (both: AutoAttack's `rand`), low-frequency, square; or all."),
    ] = "transfer,pgd,apgd,low-frequency,square",
    eps: Annotated[
        str, typer.Option(metavar="NUMBER", help="Radius on images in [0, 1]; 8/255 is understood.")
    ] = "8/255",
    norm: Annotated[str, typer.Option(metavar="linf|l2", help="Norm of the ball.")] = "linf",
    steps: Annotated[int, typer.Option(min=1, help="Steps of each gradient attack.")] = 100,
    eot: Annotated[int, typer.Option(min=1, help="Noises that each gradient is averaged over.")] = 20,
    restarts: Annotated[int, typer.Option(min=1, help="Runs of each gradient attack; the worst result counts.")] = 1,
    votes: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Of the majority. Default: as the preset says.",
                                 show_default=False),
    ] = None,
    worst: Annotated[int, typer.Option(min=1, metavar="N", help="Of worst-of-N and of the resubmission curve.")] = 10,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images to draw, every class in proportion. Default: all, at most 256.",
                                 show_default=False),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Each attack is run once with each seed.")] = "0",
    mask_gradient: Annotated[
        str, typer.Option(metavar="none|soft|straight_through", help="Attack presets with a mask once more, through "
                          "its soft surrogate."),
    ] = "none",
    norm_penalty: Annotated[
        float, typer.Option(min=0.0, help="Weight of the score norm in the loss of pgd-small-norm.")
    ] = 1.0,
    queries: Annotated[int, typer.Option(min=2, help="Of square, for each image.")] = 1000,
    surrogate_calls: Annotated[int, typer.Option(min=1, help="UNet calls of the surrogate.")] = 2,
    noise_policy: Annotated[
        bool, typer.Option("--noise-policy", help="Compare secret, per-process and known noise too.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images attacked at a time; a checkpoint follows each batch.")] = 64,
    copies: Annotated[
        int | None, typer.Option(min=1, help="EOT copies that are differentiated side by side. Default: all.",
                                 show_default=False),
    ] = None,
    keep_activations: Annotated[
        bool, typer.Option("--keep-activations", help="Compute no row again in the backward pass: faster, more memory.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where PyTorch computes gradients: cpu, cuda.")] = "cpu",
    noise_seed: Annotated[
        int | None, typer.Option(min=0, help="Of the engine's noise, to repeat a run. Default: secret, and recorded.",
                                 show_default=False),
    ] = None,
    card: Annotated[bool, typer.Option("--card/--no-card", help="Put the robustness card into the bundle.")] = True,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with tables, curves and images.",
                                  show_default=False),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the checkpoints, kept. Default: a hidden one beside "
                                  "the bundle, removed at the end.", show_default=False),
    ] = None,
    resize: ResizeOption = False,
    provider: ProviderOption = "cpu",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    slots: SlotsOption = 32,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:  # fmt: skip
    """Attack presets of a bundle through their differentiable twin, and count what the engine still gets right.

    Every number comes with its protocol, three decision rules (single purification, worst of N, majority of K) and a
    confidence interval. The defaults are what critics ask for and take long: the estimate is shown, every finished
    batch is kept, and the same command goes on there. Needs PyTorch: pip install edgepure[robustness].

    Examples:

    \b
      edgepure evaluate digits --data test.npz --eps 0.05 --steps 40 --eot 5 --images 64 --queries 200
      edgepure evaluate cifar10 --data test/ --attack pgd,apgd --device cuda --mask-gradient soft --report robust.html
      edgepure evaluate digits --data test.npz --attack square --noise-policy --no-card --json
    """
    from edgepure.cli.output import emit_json, note, prepare_file
    from edgepure.cli.progress import Progress

    with needs("an evaluation needs PyTorch", "robustness"):
        evaluation = import_module("edgepure_calibration.evaluate")
        from ..evaluate.card import write_card
        from ..evaluate.report import write_report
    if report is not None:  # not found out after the whole run
        prepare_file(report, "--report")
    settings = evaluation.Settings(
        attacks=tuple(evaluation.ATTACKS) if attack == "all" else _names(attack),
        norm=norm, eps=radius(eps), steps=steps, eot=eot, restarts=restarts, votes=votes, worst=worst, images=images,
        seeds=_whole_numbers(seeds), mask_gradient=mask_gradient, norm_penalty=norm_penalty, queries=queries,
        surrogate_calls=surrogate_calls, batch=batch, copies=copies, noise_seed=noise_seed,
    )  # fmt: skip
    folder = work or bundle.resolve().parent / f".{bundle.resolve().name}.evaluate"
    try:
        with Progress("opening the bundle") as bar:
            found = evaluation.evaluate(
                bundle, data, preset, settings, with_noise_policy=noise_policy, provider=provider, precision=precision,
                threads=threads, slots=slots, device=device, checkpointing=not keep_activations, work=folder,
                resize=resize, on_progress=bar.update,
            )  # fmt: skip
    except (KeyboardInterrupt, SystemExit):
        if folder.is_dir():
            note(f"finished batches are kept in {folder}: the same command goes on from there")
        raise
    if report is not None:
        write_report(found, report)
    if card:
        write_card(bundle, found, precision)
    if work is None:
        remove_work_folder(folder)
    if as_json:
        emit_json({**found.to_dict(), "card": card, "report": None if report is None else str(report)})
    else:
        _print(found, bundle, card=card, report=report)


def _print(found: Evaluation, bundle: Path, *, card: bool, report: Path | None) -> None:
    from edgepure.cli.output import say, table

    from ..evaluate.protocol import Footnotes
    from ..evaluate.tables import attack_table, mask_table, policy_table

    notes = Footnotes()
    shown = [attack_table(preset, notes) for preset in found.presets]
    shown += [made for made in (mask_table(found, notes), policy_table(found, notes)) if made is not None]
    for one in shown:
        say(f"{one.title}: {one.note}")
        table(one.columns, one.rows)
        say("")
    for preset in found.presets:
        for attack in preset.attacks:
            say(f"{preset.name}, {attack.protocol.title}, twin and engine: {attack.agreement}")
    say("\nprotocols:")
    for line in notes.lines():
        say(f"  {line}")
    say("not tested:")
    for line in found.not_tested():
        say(f"  - {line}")
    if report is not None:
        say(f"report: {report}")
    if card:
        say(f"card: {bundle}/robustness/card.md")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _whole_numbers(text: str) -> tuple[int, ...]:
    parts = _names(text)
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--seeds {text!r}: expected whole numbers separated by commas, for example 0,1,2")
    return tuple(int(part) for part in parts)
