"""``edgepure calibrate``: measure what the knobs of a bundle should be, and put it into the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepure.cli.options import (
    BundleArgument,
    DebugOption,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    ResizeOption,
    ThreadsOption,
)
from edgepure.files.locks import remove_work_folder

if TYPE_CHECKING:
    from ..calibrate import Calibrated


def calibrate(
    bundle: BundleArgument,
    data: Annotated[
        str,
        typer.Option(metavar="DIR|FILE.npz", help="Clean images, at least 50: a folder (with one sub-folder per class, "
                     "if they are labelled) or an .npz with `images` and `labels`; FILE.npz:NAME takes another array.",
                     show_default=False),
    ],
    attacked: Annotated[
        str | None,
        typer.Option(metavar="DIR|FILE.npz", help="Attacked images, at least 20, likewise. Without them the choices "
                     "rest on clean images alone.", show_default=False),
    ] = None,
    probe_t: Annotated[
        str | None,
        typer.Option(metavar="T,T,T+T+T,...", help="Timesteps of the probes to try; joined by + they are one probe of "
                     "several UNet calls. Default: 1,2,5,10,20,50,100,200,5+10+20.", show_default=False),
    ] = None,
    noise: Annotated[
        str, typer.Option(metavar="both|with|without", help="Try probes with noise in the image, without, or both.")
    ] = "both",
    full_probe: Annotated[
        int, typer.Option(min=0, help="UNet calls of the papers' probe, tried as well; 0 leaves it out.")
    ] = 20,
    search: Annotated[int, typer.Option(min=20, help="Images of each kind on which probes are compared, "
                       "at most --limit.")] = 200,
    limit: Annotated[int, typer.Option(min=20, help="Images of each kind that are used at all.")] = 2000,
    preset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A preset that gets SSNI (as NAME-ssni, if it has none). May be given "
                     "several times. Default: all that have SSNI; if none has, the default one.", show_default=False),
    ] = None,
    reweighting: Annotated[str, typer.Option(metavar="sigmoid|linear", help="Of presets without SSNI.")] = "sigmoid",
    minimum: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Weakest noise of presets without SSNI, as a fraction of t*.")
    ] = 0.4,
    mask_area: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Set the mask threshold of every preset that has one to what covers "
                     "this share of the pixels on average.", show_default=False),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply/--no-apply", help="Write calibration and presets into the bundle.")
    ] = True,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page with plots and all numbers.", show_default=False),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for partial results, kept. Default: a hidden one beside the bundle, "
                     "removed at the end.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of all draws.")] = 0,
    resize: ResizeOption = False,
    provider: ProviderOption = "cpu",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:  # fmt: skip
    """Measure score norms and mask areas of a bundle, choose SSNI's probe and parameters, and write them into it.

    Everything runs through the exported graphs. An interrupted run goes on where it was when the same command is given
    again. The bundle changes all at once at the end, or not at all.

    Examples:

    \b
      edgepure calibrate digits --data photos/
      edgepure calibrate digits --data images.npz:clean --attacked images.npz:adversarial --report calibration.html
    """
    from edgepure.cli.output import emit_json, note, prepare_file
    from edgepure.cli.progress import Progress

    from ..calibrate import Settings
    from ..calibrate import calibrate as run
    from ..calibrate.probes import DEFAULT_LEVELS, parse_levels
    from ..calibrate.report import write_report

    if report is not None:
        prepare_file(report, "--report")
    settings = Settings(
        levels=DEFAULT_LEVELS if probe_t is None else parse_levels(probe_t),
        noise=noise,  # type: ignore[arg-type]  # it is checked there
        full_probe=full_probe, search=min(search, limit), limit=limit,
        presets=None if preset is None else tuple(preset), reweighting=reweighting, minimum=minimum,
        mask_area=mask_area, seed=seed,
    )  # fmt: skip
    folder = work or bundle.resolve().parent / f".{bundle.resolve().name}.calibrate"
    try:
        with Progress("calibrating") as bar:
            found = run(
                bundle, data, attacked=attacked, settings=settings, apply=apply, work=folder, provider=provider,
                precision=precision, threads=threads, resize=resize, on_progress=bar.update,
            )  # fmt: skip
    except (KeyboardInterrupt, SystemExit):
        if folder.is_dir():
            note("what was measured is kept: the same command goes on from there")
        raise
    if report is not None:
        write_report(report, found.bundle.name, found.measured, found.presets, found.applied)
    if work is None:
        remove_work_folder(folder)
    if as_json:
        emit_json(_document(found, report))
    else:
        _print(found, report)


def _document(found: Calibrated, report: Path | None) -> dict[str, Any]:
    return {
        "bundle": str(found.bundle),
        "applied": found.applied,
        "presets": {name: p.model_dump(mode="json") for name, p in found.presets.items()},
        "calibration": found.calibration.model_dump(mode="json"),
        "report": None if report is None else str(report),
    }


def _print(found: Calibrated, report: Path | None) -> None:
    from edgepure.cli.output import say, table

    from ..calibrate.probes import describe, ranked

    made = found.calibration
    others = "" if made.attacked is None else f" and {made.attacked.images} attacked"
    say(f"{found.bundle}: calibrated on {made.clean.images} clean{others} images")
    rows = []
    for entry in ranked(made.probes):
        own = entry.separation
        assert own is not None
        mark = " *" if entry.probe.same_rows(made.chosen) else ""
        auroc = f"{own.auroc:.3f} ({own.low:.3f} to {own.high:.3f})"
        rows.append((describe(entry.probe) + mark, auroc, f"{own.difference:.1f}", f"{entry.clean.mean:.4g}"))
    against = made.probes[0].separation.against if made.probes[0].separation else ""
    table(("probe", f"AUROC ({against})", "difference", "clean mean"), rows, right=("difference", "clean mean"))
    say(f"* chosen: {made.reason}")
    if made.attacked is None:
        say("No attacked images: random signs of 8/255 stood in for them, which is no attack.")
    for name, values in (("sigmoid", made.sigmoid), ("linear", made.linear)):
        say(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in values.model_dump().items()))
    first = made.first_call
    if first is not None and first.separation is not None:
        say(
            f"first call of {first.preset}: rank correlation {first.rank_correlation:.2f} with the chosen probe, AUROC "
            f"{first.separation.auroc:.3f}"
        )
    names = ", ".join(sorted(found.presets))
    say(f"\npresets written: {names}" if found.applied else f"\nnot written (--no-apply): {names}")
    if report is not None:
        say(f"report: {report}")
