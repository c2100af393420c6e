"""A calibration as one HTML page: score-norm histograms, ROC curves, the reweighting, mask areas, and all numbers."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from edgepure.bundle.calibration import Calibration, MaskCalibration, ProbeCalibration
from edgepure.methods.presets import Preset
from edgepure.methods.ssni import SsniSpec
from edgepure.report.page import Card, Cards, Cell, Figure, Figures, Notes, Section, Table, Verdict, page, write_page
from edgepure.report.plots import Plot, Scale, histograms
from edgepure.report.text import Markup

from .measured import Measured, ProbeNorms
from .probes import describe, ranked
from .statistics import roc_curve

_WORDS = {"attacked": "attacked images", "random signs": "clean images with random signs added"}
#: ROC curves are drawn of this many probes at most, from the best to the worst.
_CURVES = 8


def write_report(
    path: str | PathLike[str], name: str, measured: Measured, presets: dict[str, Preset], applied: bool
) -> Path:
    """Write the page, whole or not at all. ``name``: of the bundle.

    Raises:
        EdgepureError: the file cannot be written.
    """
    found = measured.calibration
    title = f"Calibration of {name}"
    sections = [
        _headline(title, measured),
        Section("Score norms and noise levels", parts=[Figures(_figures(measured))]),
        *_tables(found, presets, applied),
        Section("What these numbers are", parts=[Notes(_notes(measured))]),
    ]
    return write_page(path, page(title, sections), "--report")


def _headline(title: str, measured: Measured) -> Section:
    found, words = measured.calibration, _WORDS[measured.against]
    others = "no attacked images" if found.attacked is None else f"{found.attacked.images} attacked images"
    chosen = found.find(found.chosen)
    apart = None if chosen is None else chosen.separation
    cards = []
    if apart is not None:
        below = f"{apart.low:.4f} to {apart.high:.4f}, of telling {words} from clean ones"
        cards.append(Card("AUROC", f"{apart.auroc:.3f}", below, _tone(apart.auroc)))
    cards.append(Card("UNet calls of the probe", str(found.chosen.unet_calls), describe(found.chosen)))
    for name, data in (("clean", found.clean), ("attacked", found.attacked)):
        if data is not None and data.accuracy is not None:
            value = f"{100 * data.accuracy:.1f} %"
            cards.append(Card(f"Classifier alone, {name}", value, f"{data.images} images"))
    verdict = Verdict(f"Chosen: {found.reason}.", "good" if apart is not None and apart.auroc >= 0.75 else "fair")
    return Section(title, [f"{found.clean.images} clean images, {others}."], [Cards(cards)], verdict, top=True)


def _tone(auroc: float) -> str:
    return "good" if auroc >= 0.9 else "fair" if auroc >= 0.75 else "bad"


# ---- plots -----------------------------------------------------------------------------------------------------------


def _figures(measured: Measured) -> list[Figure]:
    found, words = measured.calibration, _WORDS[measured.against]
    chosen = next(n for n in measured.final if n.probe.same_rows(found.chosen))
    figures = [
        Figure(_histogram(chosen, found, words), f"Of the chosen probe: {describe(found.chosen)}.", "Score norms"),
        Figure(
            _roc(measured),
            f"Of telling {words} from clean ones by their norm; the best probe of the search to the worst, with AUROC.",
            "ROC",
        ),
        Figure(
            _reweighting(chosen, found), "The share of the preset's noise level t* that an image gets.", "Reweighting"
        ),
    ]
    note = "Mean share of the pixels of clean images inside the mask; the band holds nine images of ten."
    return figures + [Figure(_mask_area(mask), note, f"Mask area, rule {mask.rule}") for mask in found.masks]


def _histogram(norms: ProbeNorms, found: Calibration, words: str) -> Markup:
    edges = np.histogram_bin_edges(np.concatenate([norms.clean, norms.other]), bins=50)
    series = [("good", "clean", norms.clean), ("bad", words, norms.other)]
    return histograms(series, "score norm", edges, (found.sigmoid.mu, "mu"))


def _roc(measured: Measured) -> Markup:
    plot = Plot(Scale(0.0, 1.0, unit="%"), Scale(0.0, 1.0, unit="%"), "clean images flagged; upwards: others flagged")
    plot.line([0.0, 1.0], [0.0, 1.0], "bound")
    order = ranked(measured.calibration.probes)
    places = np.unique(np.linspace(0, len(order) - 1, _CURVES).round().astype(int))
    for number, place in enumerate(places):
        entry = order[place]
        norms = next(n for n in measured.search if n.probe.same_rows(entry.probe))
        false, true = roc_curve(norms.clean, norms.other)
        plot.line(false.tolist(), true.tolist(), f"s{number}", f"{describe(entry.probe)}: {_auroc(entry):.3f}")
    return plot.svg("ROC curves")


def _reweighting(norms: ProbeNorms, found: Calibration) -> Markup:
    ends = np.concatenate([norms.clean, norms.other])
    grid = np.linspace(0.95 * ends.min(), 1.05 * ends.max(), 200)
    plot = Plot(Scale(float(grid[0]), float(grid[-1])), Scale(-0.12, 1.6), "score norm; upwards: t / t*")
    for part, kind, name, height in ((norms.clean, "good", "clean", -0.09), (norms.other, "bad", "others", -0.05)):
        for norm in part:
            plot.between(float(norm), height, height + 0.04, kind)
        plot.name(kind, name)
    for kind, name, values in (("accent", "sigmoid", found.sigmoid), ("s3", "linear", found.linear)):
        spec = SsniSpec.model_validate({"reweighting": name, **values.model_dump(), "bias": values.bias})
        plot.line(grid.tolist(), [spec.noise_level(float(n), 1.0) for n in grid], kind, name)
    return plot.svg("share of the noise level over the score norm")


def _mask_area(mask: MaskCalibration) -> Markup:
    x = [a.threshold for a in mask.areas]
    # the map of a softmax over many pixels spans decades
    plot = Plot(
        Scale.over(x, log=mask.rule == "softmax"), Scale(0.0, 1.0, unit="%"), "threshold tau; upwards: share inside"
    )
    plot.band(x, [a.low for a in mask.areas], [a.high for a in mask.areas], "good")
    plot.line(x, [a.area for a in mask.areas], "good", dots=True)
    return plot.svg(f"mask area, rule {mask.rule}")


# ---- tables ----------------------------------------------------------------------------------------------------------


def _tables(found: Calibration, presets: dict[str, Preset], applied: bool) -> list[Section]:
    done = "Written into the bundle" if applied else "Not written (--no-apply)"
    numbers = ["UNet calls", "AUROC", "difference", "clean mean", "clean std"]
    probes = Table.of(
        ["probe", *numbers, "images"], [_probe_row(p, found) for p in ranked(found.probes)], right=numbers
    )
    parameters = [
        (name, ", ".join(f"{k} = {v:g}" for k, v in values.model_dump().items()))
        for name, values in (("sigmoid", found.sigmoid), ("linear", found.linear))
    ]
    ssni = [
        (name, "-" if p.ssni is None else p.ssni.model_dump_json(exclude={"probe"}, exclude_none=True))
        for name, p in presets.items()
    ]
    words = (
        "Ordered by AUROC, with its 95 % interval. The difference of the means is in standard deviations of the clean "
        "norms."
    )
    sections = [
        Section("Probes", [words], [probes]),
        Section("Parameters", ["bias is a fraction of t*."], [Table.of(["reweighting", "parameters"], parameters)]),
        Section("Presets", [f"{done}."], [Table.of(["preset", "SSNI"], ssni)]),
    ]
    columns = ["threshold", "mean area", "5 % have less", "5 % have more"]
    for mask in found.masks:
        rows = [(f"{a.threshold:g}", *(f"{100 * v:.1f} %" for v in (a.area, a.low, a.high))) for a in mask.areas]
        table = Table.of(columns, rows, right=columns[1:], narrow=True)
        sections.append(Section(f"Mask area, rule {mask.rule}", [f"Of {mask.images} clean images."], [table]))
    return sections


def _probe_row(entry: ProbeCalibration, found: Calibration) -> list[str | Cell]:
    assert entry.separation is not None
    own, clean = entry.separation, entry.clean
    return [
        Cell(describe(entry.probe), ["chosen"] if entry.probe.same_rows(found.chosen) else []),
        str(entry.probe.unet_calls),
        Cell(f"{own.auroc:.4f}", [f"{own.low:.4f} to {own.high:.4f}"]),
        f"{own.difference:.1f}",
        f"{clean.mean:g}",
        f"{clean.std:g}",
        Cell(f"{clean.images} clean", [f"{own.norms.images} others"]),
    ]


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
    if measured.against == "random signs":
        notes.append(
            "No attacked images were given: the probes were compared by how well they tell clean images with +8/255 "
            "or -8/255 in every pixel. That is no attack; give attacked images for a better choice."
        )
    if first is not None and first.separation is not None:
        full = ""
        if first.full_rank_correlation is not None and first.full_probe is not None:
            calls = first.full_probe.unet_calls
            full = f", {first.full_rank_correlation:.3f} with those of the papers' probe of {calls} calls"
        notes.append(
            f"Could the first UNet call of the preset {first.preset} (t {first.probe.visited[0] - 1:g}) double as "
            f"the probe? Its norms have a rank correlation of {first.rank_correlation:.3f} with those of the chosen "
            f"probe{full}; their AUROC is {first.separation.auroc:.3f}. It is not used: the noise level has to be "
            "known before that call adds its noise."
        )
    return notes
