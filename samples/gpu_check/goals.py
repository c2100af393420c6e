"""What the engines are meant to reach, beside what was found. Goals are no checks: missing one fails nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .sections import SECTIONS

#: Loop cost at batch 1 with CUDA graphs, and speed over PyTorch eager fp32 at batch 1.
LOOP_COST, OVER_EAGER = 1.03, 3.0
#: Milliseconds of a UNet call at batch 1 in fp16: GPU -> section -> goal.
MILLISECONDS = {"H200": {"ddpmpp": 2.0, "adm256": 6.0}}
#: Ways that run with CUDA graphs.
_GRAPHED = ("edgepure tensorrt", "CUDA graphs")

Row = tuple[str, str, str, str]


def goals(data: Mapping[str, Any]) -> list[Row]:
    """``(network, goal, found, verdict)`` for everything that was measured at batch 1."""
    rows: list[Row] = []
    for section in SECTIONS:
        if section.argument is not None and section.name in data["sections"]:
            results = data["sections"][section.name].get("results", [])
            first = [r for r in results if r.get("batch") == 1 and "ms_per_call" in r]
            rows += _of_network(section.name, first, data["machine"]["gpus"])
    return rows


def _of_network(name: str, results: list[dict[str, Any]], gpus: list[str]) -> Iterator[Row]:
    ours = [r for r in results if r["part"].startswith("edgepure") and "fp16" in r["part"]]
    ms = min((r["ms_per_call"] for r in ours), default=None)
    costs = [r["loop_cost"] for r in results if "loop_cost" in r and any(mark in r["part"] for mark in _GRAPHED)]
    if costs:
        yield _row(name, f"loop cost with CUDA graphs at most {LOOP_COST}", min(costs), min(costs) <= LOOP_COST)
    if ms is None:
        return
    for way, least in (("pytorch eager fp32", OVER_EAGER), ("pytorch compile fp16", 1.0)):
        theirs = [r["ms_per_call"] for r in results if r["part"].startswith(way)]
        if theirs:
            yield _row(name, f"at least {least:g} x {way}", min(theirs) / ms, min(theirs) / ms >= least)
    for gpu, limits in MILLISECONDS.items():
        if name in limits and any(gpu in found for found in gpus):
            yield _row(name, f"at most {limits[name]:g} ms a call in fp16 on {gpu}", ms, ms <= limits[name])


def _row(name: str, goal: str, found: float, reached: bool) -> Row:
    return name, goal, f"{found:.3f}", "reached" if reached else "missed"
