"""A quantization as one HTML page: the verdict, the error of each layer, the trajectories, and all numbers."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ..page import Figure, Table, write_page
from ..plots import figure_to_data_uri, new_figure

_GOOD, _BAD = "#12805c", "#c2342b"
#: The plot shows this many layers at most, the most sensitive ones.
_LAYERS = 40


def write_report(path: str | PathLike[str], name: str, evidence: Mapping[str, Any]) -> Path:
    """Write the page, whole or not at all. ``name``: of the bundle; ``evidence``: of `quantize`'s outcome.

    Raises:
        EdgepureError: Matplotlib or Jinja2 is missing, or the file cannot be written.
    """
    figures = []
    if evidence["sensitivity"]:
        note = (
            "What converting this layer alone does to the result of a step: root mean square error as a share of the "
            "result. Red: kept in higher precision."
        )
        figures.append(Figure("Error of each layer", note, figure_to_data_uri(_layers(evidence))))
    for gate in last_gates(evidence):
        if gate["drift"]:
            note = (
                f"Preset {gate['preset']}: root mean square difference to fp32 after each row, with the same noise "
                "(green), and between two noises in fp32 (grey)."
            )
            figures.append(Figure("Drift of the trajectories", note, figure_to_data_uri(_drift(gate))))
    return write_page(
        path,
        title=f"{evidence['precision']} for {evidence['target']}: {name}",
        summary=verdict(evidence),
        figures=figures,
        tables=_tables(evidence),
        notes=_notes(evidence),
    )


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


def _layers(evidence: Mapping[str, Any]) -> Any:
    items = list(evidence["sensitivity"].items())[:_LAYERS]
    kept = set(evidence["kept"])
    figure, axes = new_figure(7.0, 1.2 + 0.2 * len(items))
    places = list(range(len(items)))[::-1]
    axes.barh(places, [error for _, error in items], color=[_BAD if name in kept else _GOOD for name, _ in items])
    axes.set_yticks(places, [name for name, _ in items], fontsize="x-small")
    axes.set_xscale("log")
    axes.set_xlabel("relative error of a step")
    return figure


def _drift(gate: Mapping[str, Any]) -> Any:
    figure, axes = new_figure()
    rows = range(1, len(gate["drift"]) + 1)
    axes.plot(rows, gate["redraw_drift"], color="#777", label="other noise, fp32")
    axes.plot(rows, gate["drift"], color=_GOOD, marker="o", markersize=3, label="same noise, this variant")
    axes.set_yscale("log")
    axes.set_xlabel("row")
    axes.set_ylabel("difference")
    axes.legend()
    return figure


def _tables(evidence: Mapping[str, Any]) -> list[Table]:
    tables = []
    checks = [
        (
            gate["preset"],
            c["name"],
            f"{c['value']:.4g}",
            f"{c['limit']:.4g}",
            "ok" if c["passed"] else "FAILED",
            c["sentence"],
        )
        for gate in last_gates(evidence)
        for c in gate["checks"]
    ]
    if checks:
        tables.append(Table("Gate", "", ("preset", "check", "value", "limit", "verdict", "in words"), checks))
    if isinstance(evidence["speed"], list):
        rows = [
            (str(s["batch"]), f"{s['fp32_ms']:.3f}", f"{s['variant_ms']:.3f}", f"{s['ratio']:.2f}")
            for s in evidence["speed"]
        ]
        note = f"One step call on {evidence['environment']['device']}, medians; both side by side in the same rounds."
        tables.append(Table("Speed", note, ("batch", "fp32, ms", "variant, ms", "times faster"), rows))
    attempts = [
        (
            str(number),
            str(len(a["kept"])),
            f"{a['error']:.4g}",
            "passed" if all(g["passed"] for g in a["gates"]) else "; ".join(_failed(a)),
        )
        for number, a in enumerate(evidence["attempts"], start=1)
    ]
    if attempts:
        tables.append(Table("Attempts", "", ("attempt", "layers kept", "error of a step", "gate"), attempts))
    counts = [(graph, *_counts(report)) for graph, report in evidence["graphs"].items()]
    columns = ("graph", "quantized", "Q nodes", "DQ nodes", "operators in 16 bits", "casts")
    tables.append(Table("Graphs", "", columns, counts))
    return tables


def _failed(attempt: Mapping[str, Any]) -> list[str]:
    return [g["failure"] or c["sentence"] for g in attempt["gates"] for c in g["checks"] or [{}] if not c.get("passed")]


def _counts(report: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    qdq, half = report.get("qdq"), report.get("half")
    first = ("-", "-", "-")
    if qdq is not None:
        operators = ", ".join(f"{count} {name}" for name, count in sorted(qdq["operators"].items()))
        first = (operators, str(qdq["quantize_nodes"]), str(qdq["dequantize_nodes"]))
    return (
        *first,
        "-" if half is None else str(sum(half["operators"].values())),
        "-" if half is None else str(half["casts"]),
    )


def _notes(evidence: Mapping[str, Any]) -> list[str]:
    data = ", ".join(f"{part['images']} {name}" for name, part in evidence["data"].items())
    made = evidence["calibration"]
    speed = evidence["speed"]
    notes = [
        f"Judged on {data} images, each purified with {evidence['redraws']} noises; every purification is one "
        f"decision. None of the {made['images']} images that were used to calibrate is among them.",
        "The bounds of flips count decisions as independent, although several belong to one image.",
        f"Calibrated on {made['calls']} recorded calls from {made['different_rows']} different rows.",
        f"Decisions were measured on {evidence['measured_on']}.",
        ", ".join(f"{key} {value}" for key, value in evidence["environment"].items()),
    ]
    if evidence["kernel"]:
        ratios = evidence["kernel"]["matrix_product_times_faster"].items()
        ratio = " and ".join(f"{ratio:.2f} (batch {batch})" for batch, ratio in ratios)
        notes.append(
            f"Kernel of the integer convolutions: {evidence['kernel']['convolutions']}. As matrix products they made a "
            f"step call {ratio} times as fast as the direct kernel here."
        )
    return notes if isinstance(speed, list) else [*notes, f"Speed: {speed}."]
