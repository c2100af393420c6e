"""A calibration as one HTML page: score-norm histograms, ROC curves, the reweighting, mask areas, and all numbers."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgepure.bundle.calibration import Calibration, MaskCalibration, ProbeCalibration
from edgepure.methods.presets import Preset
from edgepure.methods.ssni import SsniSpec

from ..page import Figure, Table, write_page
from ..plots import figure_to_data_uri, new_figure
from .probes import describe, ranked
from .run import Measured, ProbeNorms
from .statistics import roc_curve

_CLEAN, _OTHER = "#12805c", "#c2342b"
_WORDS = {"attacked": "attacked images", "random signs": "clean images with random signs added"}
#: ROC curves are drawn of this many probes at most, from the best to the worst.
_CURVES = 8


def write_report(
    path: str | PathLike[str], name: str, measured: Measured, presets: dict[str, Preset], applied: bool
) -> Path:
    """Write the page, whole or not at all. ``name``: of the bundle.

    Raises:
        EdgepureError: Matplotlib or Jinja2 is missing, or the file cannot be written.
    """
    found = measured.calibration
    return write_page(
        path,
        title=f"Calibration of {name}",
        summary=f"{found.clean.images} clean images, {_others(found)}. Chosen: {found.reason}.",
        figures=_figures(measured),
        tables=_tables(found, presets, applied),
        notes=_notes(measured),
    )


def _others(found: Calibration) -> str:
    return "no attacked images" if found.attacked is None else f"{found.attacked.images} attacked images"


# ---- plots -----------------------------------------------------------------------------------------------------------


def _figures(measured: Measured) -> list[Figure]:
    found, words = measured.calibration, _WORDS[measured.against]
    chosen = next(n for n in measured.final if n.probe.same_rows(found.chosen))
    figures = [
        Figure("Score norms", f"Of the chosen probe: {describe(found.chosen)}. Green: clean images; red: {words}.",
               figure_to_data_uri(_histogram(chosen, found, words))),
        Figure("ROC", f"Of telling {words} from clean ones by their norm; the best probe of the search to the worst.",
               figure_to_data_uri(_roc(measured))),
        Figure("Reweighting", "The share of the preset's noise level t* that an image gets.",
               figure_to_data_uri(_reweighting(chosen, found))),
    ]  # fmt: skip
    if found.masks:
        note = "Mean share of the pixels of clean images inside the mask; the band holds nine images of ten."
        figures.append(Figure("Mask area", note, figure_to_data_uri(_mask_area(found.masks))))
    return figures


def _histogram(norms: ProbeNorms, found: Calibration, words: str) -> Any:
    figure, axes = new_figure()
    bins = np.histogram_bin_edges(np.concatenate([norms.clean, norms.other]), bins=50)
    axes.hist(norms.clean, bins, color=_CLEAN, alpha=0.7, label="clean", density=True)
    axes.hist(norms.other, bins, color=_OTHER, alpha=0.7, label=words, density=True)
    axes.axvline(found.sigmoid.mu, color="#333", linewidth=1, linestyle=":", label="mu")
    axes.set_xlabel("score norm")
    axes.set_ylabel("density")
    axes.legend()
    return figure


def _roc(measured: Measured) -> Any:
    figure, axes = new_figure(5.2, 4.2)
    order = ranked(measured.calibration.probes)
    for place in np.unique(np.linspace(0, len(order) - 1, _CURVES).round().astype(int)):
        entry = order[place]
        norms = next(n for n in measured.search if n.probe.same_rows(entry.probe))
        false, true = roc_curve(norms.clean, norms.other)
        axes.plot(false, true, linewidth=1.4, label=f"{describe(entry.probe)}: {_auroc(entry):.3f}")
    axes.plot([0, 1], [0, 1], color="#999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("clean images flagged")
    axes.set_ylabel("others flagged")
    axes.legend(fontsize="x-small", title="AUROC", loc="lower right")
    return figure


def _reweighting(norms: ProbeNorms, found: Calibration) -> Any:
    figure, axes = new_figure()
    ends = np.concatenate([norms.clean, norms.other])
    grid = np.linspace(0.95 * ends.min(), 1.05 * ends.max(), 400)
    for name, values in (("sigmoid", found.sigmoid), ("linear", found.linear)):
        spec = SsniSpec.model_validate({"reweighting": name, **values.model_dump(), "bias": values.bias})
        axes.plot(grid, [spec.noise_level(n, 1.0) for n in grid], label=name)
    for part, colour in ((norms.clean, _CLEAN), (norms.other, _OTHER)):
        axes.plot(part, np.full(len(part), -0.05), "|", color=colour, alpha=0.3)
    axes.set_ylim(-0.12, 1.6)
    axes.set_xlabel("score norm")
    axes.set_ylabel("t / t*")
    axes.legend()
    return figure


def _mask_area(masks: Sequence[MaskCalibration]) -> Any:
    figure, axes = new_figure(7.0, 3.4, ncols=len(masks), squeeze=False)
    for axis, mask in zip(axes[0], masks, strict=True):
        x = [a.threshold for a in mask.areas]
        axis.plot(x, [a.area for a in mask.areas], color=_CLEAN, marker=".")
        axis.fill_between(x, [a.low for a in mask.areas], [a.high for a in mask.areas], color=_CLEAN, alpha=0.2)
        axis.set_title(mask.rule)
        axis.set_xlabel("threshold tau")
        axis.set_ylabel("share inside")
        if mask.rule == "softmax":  # the map of a softmax over many pixels spans decades
            axis.set_xscale("log")
            axis.tick_params(axis="x", which="minor", labelbottom=False)
    return figure


# ---- tables ----------------------------------------------------------------------------------------------------------


def _tables(found: Calibration, presets: dict[str, Preset], applied: bool) -> list[Table]:
    done = "Written into the bundle" if applied else "Not written (--no-apply)"
    tables = [
        Table(
            "Probes", "Ordered by AUROC. The difference of the means is in standard deviations of the clean norms.",
            ("probe", "UNet calls", "AUROC", "95 % interval", "difference", "clean mean", "clean std", "images"),
            [_probe_row(p, found) for p in ranked(found.probes)],
        ),
        Table("Parameters", "bias is a fraction of t*.", ("reweighting", "parameters"),
              [(n, ", ".join(f"{k} = {v:g}" for k, v in values.model_dump().items()))
               for n, values in (("sigmoid", found.sigmoid), ("linear", found.linear))]),
        Table("Presets", f"{done}.", ("preset", "SSNI"),
              [(name, "-" if p.ssni is None else p.ssni.model_dump_json(exclude={"probe"}, exclude_none=True))
               for name, p in presets.items()]),
    ]  # fmt: skip
    for mask in found.masks:
        rows = [(f"{a.threshold:g}", *(f"{100 * v:.1f} %" for v in (a.area, a.low, a.high))) for a in mask.areas]
        tables.append(
            Table(f"Mask area, rule {mask.rule}", f"Of {mask.images} clean images.",
                  ("threshold", "mean area", "5 % have less", "5 % have more"), rows)
        )  # fmt: skip
    return tables


def _probe_row(entry: ProbeCalibration, found: Calibration) -> tuple[str, ...]:
    assert entry.separation is not None
    mark = " (chosen)" if entry.probe.same_rows(found.chosen) else ""
    own, clean = entry.separation, entry.clean
    return (
        describe(entry.probe) + mark, str(entry.probe.unet_calls), f"{own.auroc:.4f}",
        f"{own.low:.4f} to {own.high:.4f}", f"{own.difference:.1f}", f"{clean.mean:g}", f"{clean.std:g}",
        f"{clean.images} clean, {own.norms.images} others",
    )  # fmt: skip


def _auroc(entry: ProbeCalibration) -> float:
    return 0.0 if entry.separation is None else entry.separation.auroc


def _notes(measured: Measured) -> list[str]:
    found, first = measured.calibration, measured.calibration.first_call
    notes = [
        f"Measured on {found.created.isoformat()} by the exported graphs in {found.precision}, edgepure "
        f"{found.edgepure_version}, seed {found.seed}. Images: SHA-256 {found.clean.sha256[:16]}..."
        + ("." if found.attacked is None else f", attacked {found.attacked.sha256[:16]}...."),
        "The norms are those of attacks that did not try to keep them small. An attacker who knows of the score norm "
        "can; the presets keep a minimum of noise for that case.",
    ]
    if found.clean.accuracy is not None:
        text = f"Accuracy of the classifier alone: {100 * found.clean.accuracy:.1f} % on the clean images"
        if found.attacked is not None and found.attacked.accuracy is not None:
            text += f", {100 * found.attacked.accuracy:.1f} % on the attacked ones"
        notes.append(text + ".")
    if measured.against == "random signs":
        notes.append(
            "No attacked images were given: the probes were compared by how well they tell clean images with +8/255 "
            "or -8/255 in every pixel. That is no attack; give attacked images for a better choice."
        )
    if first is not None and first.separation is not None:
        full = "" if first.full_rank_correlation is None else (
            f", {first.full_rank_correlation:.3f} with those of the papers' probe of {_calls(first.full_probe)} calls"
        )  # fmt: skip
        notes.append(
            f"Could the first UNet call of the preset {first.preset} (t {first.probe.visited[0] - 1:g}) double as "
            f"the probe? Its norms have a rank correlation of {first.rank_correlation:.3f} with those of the chosen "
            f"probe{full}; their AUROC is {first.separation.auroc:.3f}. It is not used: the noise level has to be "
            "known before that call adds its noise."
        )
    return notes


def _calls(probe: Any) -> int:
    return 0 if probe is None else int(probe.unet_calls)
