"""``edgepure evaluate``: attack a bundle, and count what is still decided right."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepure.cli.groups import grouped
from edgepure.cli.options import BundleArgument, ClusterOptions, PrecisionOption, SlotsOption, given, radius
from edgepure.errors import ConfigError
from edgepure.machine.packages import extensions, needs

from .shared import DataMeta, OutputOptions, RunOptions, WorkOption, at_work, names, say_limits

if TYPE_CHECKING:
    from ..evaluate import Evaluated

#: The attacks that are there without PyTorch being asked; a test compares them with the objects.
ATTACK_NAMES = (
    "transfer",
    "bpda",
    "surrogate",
    "pgd",
    "pgd-small-norm",
    "apgd-ce",
    "apgd-dlr",
    "apgd",
    "low-frequency",
    "low-frequency-fine",
    "patch",
    "geometry",
    "square",
)


@dataclass(kw_only=True)
class AttackOptions:
    """Which attacks are run, and how strongly."""

    attack: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help=f"{', '.join((*ATTACK_NAMES, *extensions('edgepure.attacks')))}; or all. apgd is both of its kinds: "
            "AutoAttack's `rand`.",
        ),
    ] = "transfer,pgd,apgd,low-frequency,square"
    eps: Annotated[str, typer.Option(metavar="NUMBER", help="Radius on images in [0, 1]; 8/255 is understood.")] = (
        "8/255"
    )
    norm: Annotated[str, typer.Option(metavar="linf|l2", help="Norm of the ball.")] = "linf"
    steps: Annotated[int, typer.Option(min=1, help="Steps of each gradient attack.")] = 100
    eot: Annotated[int, typer.Option(min=1, help="Noises that each gradient is averaged over.")] = 20
    restarts: Annotated[int, typer.Option(min=1, help="Runs of each gradient attack; the worst result counts.")] = 1
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Each attack is run once with each seed.")] = "0"
    mask_gradient: Annotated[
        str,
        typer.Option(
            metavar="none|soft|straight_through",
            help="Attack presets with a mask once more, through its soft surrogate.",
        ),
    ] = "none"
    norm_penalty: Annotated[
        float, typer.Option(min=0.0, help="Weight of the score norm in the loss of pgd-small-norm.")
    ] = 1.0
    queries: Annotated[int, typer.Option(min=2, help="Of square, for each image.")] = 1000
    grid: Annotated[
        int,
        typer.Option(min=1, help="Values a side of the field of low-frequency; of low-frequency-fine twice as many."),
    ] = 4
    patch: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the pixels in the square of patch.")] = 0.05
    surrogate_calls: Annotated[int, typer.Option(min=1, help="UNet calls of the surrogate.")] = 2
    cross: Annotated[
        bool,
        typer.Option("--cross", help="Give the images of each preset's strongest attack to the other presets too."),
    ] = False
    noise_policy: Annotated[
        bool, typer.Option("--noise-policy", help="Compare secret, per-process and known noise too.")
    ] = False
    batch: Annotated[int, typer.Option(min=1, help="Images attacked at a time; a checkpoint follows each batch.")] = 64
    copies: Annotated[
        int | None, given(None, "EOT copies that are differentiated side by side. Default: all.", min=1)
    ] = None


@dataclass(kw_only=True)
class JudgeOptions:
    """On which images, and how the answers become decisions."""

    preset: Annotated[
        list[str] | None,
        given("NAME", "A preset of the bundle. May be given several times. Default: the bundle's own default."),
    ] = None
    votes: Annotated[int | None, given("K", "Of the majority. Default: as the preset says.", min=1)] = None
    worst: Annotated[int, typer.Option(min=1, metavar="N", help="Of worst-of-N and of the resubmission curve.")] = 10
    images: Annotated[
        int | None, given(None, "Images to draw, every class in proportion. Default: all, at most 256.", min=1)
    ] = None
    baseline: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Attacked beside the presets: no-defence (the classifier alone), blur, jpeg, noise, projection; none.",
        ),
    ] = "no-defence"
    noise_seed: Annotated[
        int | None, given(None, "Of the engine's noise, to repeat a run. Default: secret, and recorded.", min=0)
    ] = None
    precision: PrecisionOption = "fp32"
    slots: SlotsOption = 32


@dataclass(kw_only=True)
class GradientOptions:
    """Where gradients are computed."""

    keep_activations: Annotated[
        bool, typer.Option("--keep-activations", help="Compute no row again in the backward pass: faster, more memory.")
    ] = False
    device: Annotated[str, typer.Option(help="Where PyTorch computes gradients: cpu, cuda.")] = "cpu"


@grouped
def evaluate(
    bundle: BundleArgument,
    data: Annotated[
        str,
        given(
            DataMeta,
            "Labelled images: a sub-folder per class, or an .npz with `images` and `labels`; "
            "FILE.npz:NAME takes another array.",
        ),
    ],
    judge: JudgeOptions,
    attacks: AttackOptions,
    gradients: GradientOptions,
    run: RunOptions,
    cluster: ClusterOptions,
    output: OutputOptions,
    outcomes: Annotated[
        Path | None, given("FILE.npz", "Write which images were decided right, for `edgepure compare`.")
    ] = None,
    save_images: Annotated[
        bool, typer.Option("--save-images", help="Put the attacked images into the file of --outcomes too.")
    ] = False,
    card: Annotated[bool, typer.Option("--card/--no-card", help="Put the robustness card into the bundle.")] = True,
    new_card: Annotated[
        bool, typer.Option("--new-card", help="Begin a new card. Default: what earlier runs measured stays on it.")
    ] = False,
    work: WorkOption = None,
) -> None:
    """Attack presets of a bundle through their differentiable twin, and count what the engine still gets right.

    Every number comes with its protocol, three decision rules (single purification, worst of N, majority of K) and a
    confidence interval. The defaults are what critics ask for and take long: the estimate is shown, every finished
    batch is kept, and the same command goes on there. Needs PyTorch: pip install edgepure[robustness].

    Examples:

    \b
      edgepure evaluate digits --data test.npz --attack pgd,square --steps 10 --eot 2 --images 16 --queries 50
      edgepure evaluate cifar10 --data test/ --attack pgd,apgd --device cuda --mask-gradient soft --report robust.html
      edgepure evaluate digits --data test.npz --attack square --images 16 --queries 50 --noise-policy --no-card --json
    """
    from edgepure.cli.output import emit_json, note
    from edgepure.cli.outputs import prepare_file

    from ..work import remove_work_folder

    with needs("an evaluation needs PyTorch", "robustness"):
        verb: Any = import_module("edgepure_calibration.evaluate")
        from ..evaluate.card import write_card
        from ..provider import ProviderSettings

    prepare_file(outcomes, "--outcomes", (data,))
    settings = _settings(attacks, judge)
    needs_labels = "an evaluation in labels"
    with at_work("evaluate", bundle, work, run, output.report, data, labels_for=needs_labels) as begun:
        found = verb.evaluate(
            bundle,
            begun.images(data),
            judge.preset,
            settings,
            provider=ProviderSettings(run.provider, judge.precision, run.threads, judge.slots),
            device=gradients.device,
            checkpointing=not gradients.keep_activations,
            work=begun.folder,
            ray=None if cluster.ray is None else verb.OnRay(cluster.ray, cluster.workers),
            on_progress=begun.update,
        )
    if outcomes is not None:
        from ..evaluate.outcomes import outcomes_of, write_outcomes

        write_outcomes(outcomes, outcomes_of(found, with_images=save_images))
    if output.report is not None:
        from ..evaluate.report import write_report

        write_report(found, output.report)
    if card:
        kept = write_card(bundle, found, judge.precision, anew=new_card)
        if kept:
            note(f"kept on the card from an earlier, stronger run: {'; '.join(kept)} (--new-card replaces them)")
    if work is None:
        remove_work_folder(begun.folder)
    if output.as_json:
        emit_json({**found.to_dict(), "card": card, "report": None if output.report is None else str(output.report)})
    else:
        _print(found, bundle, card=card, report=output.report)


def _settings(attacks: AttackOptions, judge: JudgeOptions) -> Any:
    from ..attacks.known import known_attacks
    from ..evaluate import EvaluateSettings

    return EvaluateSettings(
        attacks=tuple(known_attacks()) if attacks.attack == "all" else names(attacks.attack) or ("",),
        norm=attacks.norm,  # type: ignore[arg-type]  # it is checked there
        eps=radius(attacks.eps),
        steps=attacks.steps,
        eot=attacks.eot,
        restarts=attacks.restarts,
        mask_gradient=attacks.mask_gradient,  # type: ignore[arg-type]
        norm_penalty=attacks.norm_penalty,
        queries=attacks.queries,
        grid=attacks.grid,
        patch=attacks.patch,
        surrogate_calls=attacks.surrogate_calls,
        cross=attacks.cross,
        noise_policy=attacks.noise_policy,
        batch=attacks.batch,
        copies=attacks.copies,
        seeds=_whole_numbers(attacks.seeds),
        votes=judge.votes,
        worst=judge.worst,
        images=judge.images,
        noise_seed=judge.noise_seed,
        baselines=() if judge.baseline == "none" else names(judge.baseline),
    )


def _print(found: Evaluated, bundle: Path, *, card: bool, report: Path | None) -> None:
    from edgepure.cli.output import say, table

    from ..evaluate.tables import attack_table, cross_table, mask_table, policy_table

    notes = found.footnotes()
    shown = [attack_table(preset, notes) for preset in (*found.presets, *found.baselines)]
    shown += [
        made
        for made in (mask_table(found, notes), cross_table(found, notes), policy_table(found, notes))
        if made is not None
    ]
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
    say_limits(found.not_tested(), report, bundle if card else None)


def _whole_numbers(text: str) -> tuple[int, ...]:
    parts = names(text)
    if not parts or not all(part.isdecimal() for part in parts):
        raise ConfigError(
            f"--seeds {text!r}: expected whole numbers separated by commas, for example 0,1,2", code="E-seeds"
        )
    return tuple(int(part) for part in parts)
