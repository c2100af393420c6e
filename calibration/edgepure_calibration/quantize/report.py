"""A quantization as one HTML page: the verdict, speed, the error of each layer, the trajectories, and all numbers."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from edgepure.report.numerals import number
from edgepure.report.page import (
    Card,
    Cards,
    Cell,
    Figure,
    Figures,
    Notes,
    Part,
    Section,
    Table,
    Verdict,
    page,
    write_page,
)
from edgepure.report.plots import Plot, Scale
from edgepure.report.text import Markup

#: The plot shows this many layers at most, the most sensitive ones.
_LAYERS = 40


def write_report(path: str | PathLike[str], name: str, evidence: Mapping[str, Any]) -> Path:
    """Write the page, whole or not at all. ``name``: of the bundle; ``evidence``: of `quantize`'s outcome.

    Raises:
        EdgepureError: the file cannot be written.
    """
    title = f"{evidence['precision']} for {evidence['target']}: {name}"
    sections = [
        _headline(title, evidence),
        *_speed(evidence),
        *_gate(evidence),
        *_sensitivity(evidence),
        *_made(evidence),
        *_certificates(evidence),
        Section("What these numbers are", parts=[Notes(_notes(evidence))]),
    ]
    return write_page(path, page(title, sections, evidence["environment"]), "--report")


def verdict(evidence: Mapping[str, Any]) -> str:
    """The verdict in a sentence."""
    what = f"the {evidence['precision']} variant for {evidence['target']}"
    if not evidence["accepted"]:
        return f"{what} is refused: {'; '.join(evidence['reasons'])}"
    kept = len(evidence["kept"])
    return f"{what} is accepted" + (f", with {kept} layers in higher precision" if kept else "")


def last_gates(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The gates of the attempt that the verdict is about, one for each preset; none if it was refused before."""
    return list(evidence["attempts"][-1]["gates"]) if evidence["attempts"] else []


def _headline(title: str, evidence: Mapping[str, Any]) -> Section:
    before, after = evidence["bytes"]["fp32"], evidence["bytes"][evidence["precision"]]
    share = f"{100 * after / before:.0f} % of {before / 1e6:.2f} MB in fp32; {', '.join(evidence['graphs'])}"
    cards = [Card("Size", f"{after / 1e6:.2f} MB", share, "good" if after < before else "bad")]
    if isinstance(evidence["speed"], list):
        cards += [
            Card(
                f"Times faster, batch {s['batch']}",
                f"{s['ratio']:.2f}",
                f"{number(s['variant_ms'])} ms, fp32 {number(s['fp32_ms'])} ms",
                "good" if s["ratio"] >= 1.0 else "bad",
            )
            for s in evidence["speed"]
        ]
    gates = last_gates(evidence)
    if gates:
        passed = sum(gate["passed"] for gate in gates)
        tone = "good" if passed == len(gates) else "bad"
        cards.append(Card("Gate", f"{passed} of {len(gates)}", "presets decide as in fp32", tone))
    cards.append(Card("Layers in higher precision", str(len(evidence["kept"]))))
    judged = Verdict(verdict(evidence), "good" if evidence["accepted"] else "bad")
    return Section(title, parts=[Cards(cards)], verdict=judged, top=True)


def _speed(evidence: Mapping[str, Any]) -> list[Section]:
    speed = evidence["speed"]
    if not isinstance(speed, list):
        return [Section("Speed", [f"{speed}."])]
    rows = [[str(s["batch"]), f"{s['fp32_ms']:.3f}", f"{s['variant_ms']:.3f}", f"{s['ratio']:.2f}"] for s in speed]
    columns = ["batch", "fp32, ms", "variant, ms", "times faster"]
    words = f"One step call on {evidence['environment']['device']}, medians; both side by side in the same rounds."
    return [Section("Speed", [words], [Table.of(columns, rows, right=columns, heads=False, narrow=True)])]


def _gate(evidence: Mapping[str, Any]) -> list[Section]:
    gates = last_gates(evidence)
    rows: list[list[str | Cell]] = [
        [
            gate["preset"],
            Cell(c["name"], [c["sentence"]]),
            f"{c['value']:.4g}",
            f"{c['limit']:.4g}",
            Cell("ok", tone="good") if c["passed"] else Cell("FAILED", tone="bad"),
        ]
        for gate in gates
        for c in gate["checks"]
    ]
    parts: list[Part] = []
    if rows:
        columns = ["preset", "check", "value", "limit", "verdict"]
        parts.append(Table.of(columns, rows, right=["value", "limit"]))
    drifts = [
        Figure(
            _drift(gate),
            f"Preset {gate['preset']}: root mean square difference to fp32 after each row.",
            "Drift of the trajectories",
        )
        for gate in gates
        if gate["drift"]
    ]
    if drifts:
        parts.append(Figures(drifts))
    return [Section("Gate", ["Does the variant decide as fp32 does?"], parts)] if parts else []


def _drift(gate: Mapping[str, Any]) -> Markup:
    rows = list(range(1, len(gate["drift"]) + 1))
    scale = Scale(1.0, float(max(len(rows), 2)), whole=True)
    plot = Plot(scale, Scale.decades([*gate["drift"], *gate["redraw_drift"]]), "row")
    plot.line(rows, gate["redraw_drift"], "bound", "other noise, fp32")
    plot.line(rows, gate["drift"], "good", "same noise, this variant", dots=True)
    return plot.svg("difference to fp32 after each row")


def _sensitivity(evidence: Mapping[str, Any]) -> list[Section]:
    items = list(evidence["sensitivity"].items())
    if not items:
        return []
    words = (
        "What converting this layer alone does to the result of a step: root mean square error as a share of the "
        "result. Red: kept in higher precision."
    )
    more = f" The {_LAYERS} most sensitive of {len(items)}." if len(items) > _LAYERS else ""
    figure = Figure(_layers(items[:_LAYERS], set(evidence["kept"])))
    return [Section("Error of each layer", [words + more], [Figures([figure])])]


def _layers(items: list[tuple[str, float]], kept: set[str]) -> Markup:
    count = len(items)
    scale = Scale.decades(error for _, error in items)
    plot = Plot(scale, Scale(0.0, float(count)), "relative error of a step", height=46 + 15 * count, left=190)
    for i, (name, error) in enumerate(items):
        place = float(count - 1 - i)
        plot.bar((scale.low, error), (place + 0.12, place + 0.88), "bad" if name in kept else "good", f"{error:.3g}")
        plot.left_label(place + 0.5, name if len(name) <= 30 else f"...{name[-28:]}")
    return plot.svg("relative error of each layer", y_ticks=False)


def _made(evidence: Mapping[str, Any]) -> list[Section]:
    sections = []
    attempts = [
        [
            str(number),
            str(len(a["kept"])),
            f"{a['error']:.4g}",
            "passed" if all(g["passed"] for g in a["gates"]) else "; ".join(_failed(a)),
        ]
        for number, a in enumerate(evidence["attempts"], start=1)
    ]
    if attempts:
        columns = ["attempt", "layers kept", "error of a step", "gate"]
        sections.append(Section("Attempts", parts=[Table.of(columns, attempts, right=columns[:3], heads=False)]))
    counts = [[graph, *_counts(report)] for graph, report in evidence["graphs"].items()]
    columns = ["graph", "quantized", "Q nodes", "DQ nodes", "operators in 16 bits", "casts"]
    sections.append(Section("Graphs", parts=[Table.of(columns, counts, right=columns[2:])]))
    return sections


def _failed(attempt: Mapping[str, Any]) -> list[str]:
    return [g["failure"] or c["sentence"] for g in attempt["gates"] for c in g["checks"] or [{}] if not c.get("passed")]


def _counts(report: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    qdq, half = report.get("qdq"), report.get("half")
    first = ("-", "-", "-")
    if qdq is not None:
        operators = ", ".join(f"{count} {name}" for name, count in sorted(qdq["operators"].items()))
        first = (operators, str(qdq["quantize_nodes"]), str(qdq["dequantize_nodes"]))
    return (*first, "-" if half is None else str(sum(half["operators"].values())), "-" if half is None else
            str(half["casts"]))  # fmt: skip


def _certificates(evidence: Mapping[str, Any]) -> list[Section]:
    """Certificates of fp32 that hold for the variant, with what they lose."""
    found = evidence.get("certificates")
    sections = []
    for part in found["presets"] if found else []:
        rows: list[list[str | Cell]] = [
            [
                row["name"],
                f"{row['radius_fp32']:.4f}",
                f"{row['radius']:.4f}" if row["label"] is not None else "abstains",
                f"{row['lost']:.4f}",
                f"{row['differing']} of {part['pairs']}",
            ]
            for row in part["images"]
        ]
        columns = ["image", "radius in fp32", f"radius in {evidence['precision']}", "lost", "answers that differ"]
        words = (
            f"Preset {part['preset']}: L2 radii that were counted in fp32, less what answers of both to the same noise "
            f"leave open. Median loss {part['median_lost']:.4f}, most {part['most_lost']:.4f}; {part['abstain_now']} "
            f"of {len(rows)} images have none left. Each is wrong with probability {part['wrong_at_most']:g} at most."
        )
        table = Table.of(columns, rows, right=columns[1:], heads=False)
        sections.append(Section("Certificates carried", [words], [table]))
    return sections


def _notes(evidence: Mapping[str, Any]) -> list[str]:
    data = ", ".join(f"{part['images']} {name}" for name, part in evidence["data"].items())
    made = evidence["calibration"]
    notes = [
        f"Judged on {data} images, each purified with {evidence['redraws']} noises; every purification is one "
        f"decision. None of the {made['images']} images that were used to calibrate is among them.",
        "Bounds count images: the noises of one image tell of that image, and not of others.",
        f"Calibrated on {made['calls']} recorded calls from {made['different_rows']} different rows.",
        f"Decisions were measured on {evidence['measured_on']}.",
    ]
    if evidence["kernel"]:
        ratios = evidence["kernel"]["matrix_product_times_faster"].items()
        ratio = " and ".join(f"{ratio:.2f} (batch {batch})" for batch, ratio in ratios)
        notes.append(
            f"Kernel of the integer convolutions: {evidence['kernel']['convolutions']}. As matrix products they made a "
            f"step call {ratio} times as fast as the direct kernel here."
        )
    return notes
