"""``edgepure calibrate``: measure what the knobs of a bundle should be, and put it into the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepure.cli.groups import grouped
from edgepure.cli.options import BundleArgument, PrecisionOption, given
from edgepure.machine.packages import needs

from .shared import DataMeta, OutputOptions, RunOptions, WorkOption, at_work

if TYPE_CHECKING:
    from ..calibrate import Calibrated, CalibrateSettings


@dataclass(kw_only=True)
class ProbeOptions:
    """Which probes are tried, and on how many images."""

    probe_t: Annotated[
        str | None,
        given(
            "T,T,T+T+T,...",
            "Timesteps of the probes to try; joined by + they are one probe of several UNet calls. "
            "Default: 1,2,5,10,20,50,100,200,5+10+20.",
        ),
    ] = None
    noise: Annotated[
        str, typer.Option(metavar="both|with|without", help="Try probes with noise in the image, without, or both.")
    ] = "both"
    full_probe: Annotated[
        int, typer.Option(min=0, help="UNet calls of the papers' probe, tried as well; 0 leaves it out.")
    ] = 20
    search: Annotated[
        int, typer.Option(min=20, help="Images of each kind on which probes are compared, at most --limit.")
    ] = 200
    limit: Annotated[int, typer.Option(min=20, help="Images of each kind that are used at all.")] = 2000
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of all draws.")] = 0


@dataclass(kw_only=True)
class PresetOptions:
    """What becomes of the presets."""

    preset: Annotated[
        list[str] | None,
        given(
            "NAME",
            "A preset that gets SSNI (as NAME-ssni, if it has none). May be given several times. Default:"
            " all that have SSNI; if none has, the default one.",
        ),
    ] = None
    reweighting: Annotated[str, typer.Option(metavar="sigmoid|linear", help="Of presets without SSNI.")] = "sigmoid"
    minimum: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Weakest noise of presets without SSNI, as a fraction of t*.")
    ] = 0.4
    mask_area: Annotated[
        float | None,
        given(
            "SHARE",
            "Set the mask threshold of every preset that has one to what covers this share of the pixels on average.",
        ),
    ] = None


@grouped
def calibrate(
    bundle: BundleArgument,
    data: Annotated[
        str,
        given(
            DataMeta,
            "Clean images, at least 50: a folder (with one sub-folder per class, if they are labelled) or"
            " an .npz with `images` and `labels`; FILE.npz:NAME takes another array.",
        ),
    ],
    probes: ProbeOptions,
    presets: PresetOptions,
    run: RunOptions,
    output: OutputOptions,
    attacked: Annotated[
        str | None,
        given(DataMeta, "Attacked images, at least 20, likewise. Without them the choices rest on clean images alone."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply/--no-apply", help="Write calibration and presets into the bundle.")
    ] = True,
    work: WorkOption = None,
    precision: PrecisionOption = "fp32",
) -> None:
    """Measure score norms and mask areas of a bundle, choose SSNI's probe and parameters, and write them into it.

    Everything runs through the exported graphs. An interrupted run goes on where it was when the same command is given
    again. The bundle changes all at once at the end, or not at all.

    Examples:

    \b
      edgepure calibrate digits --data photos/
      edgepure calibrate digits --data images.npz:clean --attacked images.npz:adversarial --report calibration.html
    """
    from edgepure.cli.output import emit_json

    from ..provider import ProviderSettings
    from ..work import remove_work_folder

    with needs("calibration needs scikit-learn", "calibration"):
        import_module("sklearn")
        verb: Any = import_module("edgepure_calibration.calibrate")
    settings = _settings(probes, presets)
    with at_work("calibrate", bundle, work, run, output.report, data, attacked) as begun:
        found = verb.calibrate(
            bundle,
            begun.images(data),
            attacked=begun.images(attacked),
            settings=settings,
            apply=apply,
            work=begun.folder,
            provider=ProviderSettings(run.provider, precision, run.threads, slots=16),
            on_progress=begun.update,
        )
    if output.report is not None:
        from ..calibrate.report import write_report

        write_report(output.report, found.bundle.name, found.measured, found.presets, found.applied)
    if work is None:
        remove_work_folder(begun.folder)
    if output.as_json:
        emit_json(_document(found, output.report))
    else:
        _print(found, output.report)


def _settings(probes: ProbeOptions, presets: PresetOptions) -> CalibrateSettings:
    from ..calibrate import CalibrateSettings
    from ..calibrate.probes import DEFAULT_LEVELS, parse_levels

    return CalibrateSettings(
        levels=DEFAULT_LEVELS if probes.probe_t is None else parse_levels(probes.probe_t),
        noise=probes.noise,  # type: ignore[arg-type]  # it is checked there
        full_probe=probes.full_probe,
        search=min(probes.search, probes.limit),
        limit=probes.limit,
        presets=None if presets.preset is None else tuple(presets.preset),
        reweighting=presets.reweighting,
        minimum=presets.minimum,
        mask_area=presets.mask_area,
        seed=probes.seed,
    )


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
