"""``edgepure classify``: images in, labels out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .groups import grouped
from .options import (
    BundleArgument,
    ImagesArgument,
    MaskOption,
    PresetOptions,
    RayOptions,
    ReadOptions,
    ShownOptions,
    SlotOptions,
    VotesOption,
    given,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..purify.results import Result


@grouped
def classify(
    bundle: BundleArgument,
    images: ImagesArgument,
    *,
    chosen: PresetOptions,
    mask: MaskOption = None,
    votes: VotesOption = None,
    rule: Annotated[
        str | None,
        given(
            "majority|mean",
            "How votes decide: majority of the labels, or mean of the probabilities. Default: as the preset says.",
        ),
    ] = None,
    flag_rate: Annotated[
        float | None,
        given(
            "RATE",
            "Flag images whose score norm is off-distribution, with at most this false-positive rate, for"
            " example 0.01. Needs a calibrated bundle.",
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="With --flag-rate: measure the score norm for presets without SSNI too. "
            "Costs the UNet calls of the calibrated probe for every image.",
        ),
    ] = False,
    reject: Annotated[
        bool, typer.Option("--reject", help="With --flag-rate: list flagged images as failures, with no label.")
    ] = False,
    metrics: Annotated[
        Path | None,
        given(
            "FILE.json|FILE.prom",
            "With --flag-rate: write the monitor's counters, as JSON or in the Prometheus text format.",
        ),
    ] = None,
    read: ReadOptions,
    engine: SlotOptions,
    ray: RayOptions,
    shown: ShownOptions,
) -> None:
    """Purify images and classify what is left.

    Good images are done even if others cannot be read; those are listed and the exit code is 4.

    Examples:

    \b
      edgepure classify digits seven.png
      edgepure classify digits photos/ --preset heterogeneous --votes 5 --rule majority --json
      edgepure classify digits photos/ --preset uniform-ssni --flag-rate 0.01 --reject
    """
    from ..bundle.bundle import Bundle
    from ..purify.heads import Labels
    from ..purify.results import Failure
    from .monitor import check_options, rejection, write_metrics
    from .session import Session
    from .sources import check_ray, find_sources

    check_options(flag_rate, probe, reject, metrics, images)
    check_ray(ray, {"--mask": mask is not None, "--flag-rate": flag_rate is not None})
    sources = find_sources(images, Bundle.open(bundle, verify=False).manifest.image, read.resize)
    session = Session(bundle, chosen, read, engine, votes=votes, rule=rule, mask=mask, needs="a label", ray=ray)
    monitor = None if flag_rate is None else session.purifier.monitor(flag_rate, probe=probe)
    done: list[dict[str, Any]] = []
    rejected: list[Failure] = []

    def take(position: int, result: Result) -> None:
        if reject and result.flagged:
            rejected.append(Failure(result.name, rejection(result, flag_rate)))
        else:
            done.append(result.to_dict())

    if ray.ray is not None:
        done, failures = session.spread(sources, "classifying", "labels", lambda _, result: result.to_dict())
    else:
        failures = session.run(sources, take, "classifying", Labels(session.purifier.graphs), monitor)
    if metrics is not None and monitor is not None:
        write_metrics(monitor, metrics)
    extra = {} if monitor is None else {"monitor": monitor.to_dict()}
    session.finish(done, failures + rejected, shown.as_json, lambda: _labels(done, session.manifest.classes), extra)


def _labels(done: list[dict[str, Any]], classes: Sequence[str]) -> None:
    from .output import number, table

    columns = ["image", "label", "prob."]
    plain = any(r["plain_label"] is not None for r in done)
    if plain:
        columns.append("plain")
    levels = list(dict.fromkeys(level for r in done for level in r["levels"]))
    extras = [key for key in ("score_norm", "p_value", "flagged", "mask_area") if any(r[key] is not None for r in done)]
    columns += [*levels, *(e.replace("_", " ") for e in extras), "UNet calls", "ms"]
    rows = []
    for r in done:
        label = f"{r['class_name']} (abstained)" if r["abstained"] else r["class_name"]
        row: list[object] = [r["name"], label, f"{r['probability']:.3f}"]
        if plain:
            row.append("-" if r["plain_label"] is None else classes[r["plain_label"]])
        row += [number(r["levels"].get(level), 4) for level in levels]
        row += [_yes(r[key]) if key == "flagged" else number(r[key], 3) for key in extras]
        rows.append([*row, r["unet_calls"], f"{1e3 * r['seconds']:.1f}"])
    table(columns, rows, right=[c for c in columns if c not in ("image", "label", "plain")])


def _yes(flagged: bool | None) -> str:
    return "-" if flagged is None else "yes" if flagged else "no"
