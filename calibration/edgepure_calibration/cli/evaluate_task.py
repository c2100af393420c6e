"""``edgepure evaluate-task``: attack a bundle's detector, segmenter or embedding, and count what is left."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from edgepure.cli.groups import grouped
from edgepure.cli.options import BundleArgument, ShownOptions, given, radius
from edgepure.machine.packages import needs

from .shared import ReportOption, WideOptions, say_limits


@grouped
def evaluate_task(
    bundle: BundleArgument,
    *,
    data: Annotated[
        Path,
        given(
            "FILE.npz",
            "`images`, and `labels` as the task has them: [N, H, W] classes of pixels, [N, T] of `boxes` "
            "[N, T, 4] (-1 does not count), [N] of vectors. Without labels the task's own answers are the "
            "truth.",
        ),
    ],
    preset: Annotated[
        list[str] | None,
        given("NAME", "A preset to attack through. May be given several times. Default: the bundle's own default."),
    ] = None,
    loss: Annotated[
        str | None,
        given(
            "python:FILE.py:NAME",
            "What the attack maximises, a function (outputs, truth) -> loss of PyTorch; its code is run. "
            "Default: cross-entropy of the pixels; 1 - cosine to the clean vector; of a detector the scores of true "
            "boxes and of everything else (what it was trained with is stronger).",
        ),
    ] = None,
    eps: Annotated[
        str, typer.Option(metavar="NUMBER", help="Linf radius on images in [0, 1]; 8/255 is understood.")
    ] = ("8/255"),
    patch: Annotated[
        float | None,
        given(
            "SHARE",
            "Attack by a patch in place of --eps: a square of this share of the pixels, in which everything is "
            "allowed.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the attack.")] = 20,
    eot: Annotated[int, typer.Option(min=1, help="Noises that each gradient is averaged over.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the attack.")] = 0,
    images: Annotated[int | None, given(None, "Use the first N images. Default: all.", min=1)] = None,
    votes: Annotated[int | None, given(None, "Of each answer. Default: as the preset says.", min=1)] = None,
    noise_seed: Annotated[
        int | None, given(None, "Of the engine's noise, to repeat a run. Default: secret.", min=0)
    ] = None,
    save_images: Annotated[
        Path | None, given("FILE.npz", "Write the attacked images: `plain`, and one array a preset.")
    ] = None,
    report: ReportOption = None,
    card: Annotated[bool, typer.Option("--card/--no-card", help="Put the robustness card into the bundle.")] = True,
    new_card: Annotated[
        bool, typer.Option("--new-card", help="Begin a new card. Default: what earlier runs found stays on it.")
    ] = False,
    engine: WideOptions,
    shown: ShownOptions,
) -> None:
    """Attack a bundle's task by PGD on its loss, alone and through the purification; mIoU, mAP or recall with
    intervals.

    Gradients are exact, of the bundle's own graphs in PyTorch: pip install edgepure[robustness]. It is one adaptive
    attack, not a proof. Bundles with a classifier are attacked by `edgepure evaluate`.

    Examples:

    \b
      edgepure evaluate-task SOURCE --data scenes.npz --eps 0.05 --steps 10 --preset uniform
    """
    from edgepure.cli.output import emit_json, note, say, table
    from edgepure.cli.outputs import prepare_file
    from edgepure.cli.progress import Progress
    from edgepure.files.atomic import write_npz

    with needs("an evaluation needs PyTorch", "robustness"):
        verb: Any = import_module("edgepure_calibration.evaluate_task")
        from ..provider import ProviderSettings

    prepare_file(save_images, "--save-images", (data,))
    prepare_file(report, "--report", (data,))
    attack = verb.TaskAttack(radius(eps), steps, eot, seed, patch)
    with Progress("opening the bundle") as bar:
        found = verb.evaluate_task(
            bundle,
            data,
            preset,
            attack=attack,
            loss=None if loss is None else verb.load_loss(loss),
            images=images,
            votes=votes,
            noise_seed=noise_seed,
            provider=ProviderSettings(**asdict(engine)),
            on_progress=bar.update,
        )
    if save_images is not None:
        write_npz(save_images, found.images)
    if report is not None:
        verb.write_report(found, report)
    if card:
        kept = verb.write_card(bundle, found, engine.precision, anew=new_card)
        if kept:
            note(f"kept on the card from an earlier, stronger run: {', '.join(kept)} (--new-card replaces them)")
    if shown.as_json:
        emit_json({**found.to_dict(), "card": card, "report": None if report is None else str(report)})
        return
    name = found.rows[0].clean.name
    say(f"{found.bundle}: {found.kind}, {name} in percent (95 % interval)")
    table(
        ("preset", "UNet calls", "clean", "attacked alone", "attacked through it"),
        ((r.preset or "none", r.unet_calls, str(r.clean), str(r.transferred), str(r.attacked)) for r in found.rows),
        right=("UNet calls",),
    )
    for line in found.protocol:
        say(f"  {line}")
    say_limits(found.not_tested(), report, bundle if card else None)
