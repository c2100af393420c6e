"""The results as Markdown: machine, verdicts, speed tables, and what could not be run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .context import brief
from .goals import goals

#: Columns of a speed table: key in the results, heading, format, factor.
COLUMNS = (
    ("ms_per_call", "ms a call", "{:.3f}", 1.0),
    ("speedup", "x eager fp32", "{:.2f}", 1.0),
    ("share_of_peak", "of measured peak", "{:.0f} %", 100.0),
    ("loop_cost", "loop cost", "{:.3f}", 1.0),
    ("peak_memory_mib", "MiB", "{:.0f}", 1.0),
    ("joules_per_image_and_call", "J an image and call", "{:.4f}", 1.0),
    ("spread", "spread", "{:.0f} %", 100.0),
)
Result = Mapping[str, Any]


def markdown(data: Mapping[str, Any]) -> str:
    """All of it."""
    machine = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpus = "; ".join(machine["gpus"]) or "no CUDA device"
    lines = [
        f"# GPU check: {gpus}",
        "",
        f"{machine['date']}, driver {machine['driver'] or 'none'}, CUDA of the driver "
        f"{machine['cuda_of_driver'] or 'none'}, {machine['cpu']}, Python {machine['python']}. {versions}.",
    ]
    if machine["jetson"] is not None:
        lines.append(f"{machine['jetson']}, power mode {machine['power_mode'] or 'unknown'}.")
    if data["quick"]:
        lines += ["", "**A quick run: it shows that everything runs. Its numbers are not to be quoted.**"]
    if data["device"] == "cpu":
        lines += ["", "**A rehearsal on the CPU: it says nothing about any GPU.**"]
    lines += ["", summary(data)]
    for section in data["sections"].values():
        lines += _section(section)
    reached = goals(data)
    if reached:
        lines += ["", "## Goals at batch 1", "", "| network | goal | found | |", "|---|---|--:|---|"]
        lines += [f"| {' | '.join(row)} |" for row in reached]
    lines += _missing(data["sections"])
    text = "\n".join(lines) + "\n"
    return re.sub(r"\n{3,}", "\n\n", text)


def summary(data: Mapping[str, Any]) -> str:
    """One sentence."""
    sections = data["sections"].values()
    results = [r for s in sections for r in s.get("results", [])]
    checks = [r for r in results if "ok" in r]
    failed = [r for r in checks if not r["ok"]]
    left_out = sum(s["state"] == "could not run" for s in sections) + sum(len(s.get("missing", [])) for s in sections)
    text = f"{len(checks)} checks, {len(failed)} failed; {len(results) - len(checks)} measurements; "
    return f"{text}{left_out} sections or parts could not be run."


def _section(section: Mapping[str, Any]) -> list[str]:
    results = section.get("results", [])
    if not results:
        return []
    lines = ["", f"## {section['title']}", ""]
    if section["state"] != "finished":
        lines += [f"*{section['state']}: {section.get('reason', 'not finished when this was written')}*", ""]
    checks = [r for r in results if "ok" in r]
    timings = [r for r in results if "ms_per_call" in r]
    others = [r for r in results if r not in checks and r not in timings]
    lines += [f"{r['part']}: {brief(_without(r, 'part'))}." for r in others]
    if timings:
        lines += ["", *speed_table(timings)]
    if checks:
        lines += ["", "| check | | what was found |", "|---|---|---|"]
        lines += [f"| {r['part']} | {'ok' if r['ok'] else '**FAILED**'} | {_found(r)} |" for r in checks]
    return lines


def speed_table(timings: Iterable[Result]) -> list[str]:
    """One row for each way and batch size; columns that nobody has are left out."""
    rows = [dict(r) for r in timings]
    eager = {r["batch"]: r["ms_per_call"] for r in rows if r["part"].startswith("pytorch eager fp32")}
    for row in rows:
        if row["batch"] in eager:
            row["speedup"] = eager[row["batch"]] / row["ms_per_call"]
    rows.sort(key=lambda r: r["batch"])
    shown = [c for c in COLUMNS if any(r.get(c[0]) is not None for r in rows)]
    lines = [f"| | batch | {' | '.join(c[1] for c in shown)} |", f"|---|--:|{'--:|' * len(shown)}"]
    for row in rows:
        cells = ["" if row.get(key) is None else text.format(factor * row[key]) for key, _, text, factor in shown]
        lines.append(f"| {row['part'].rpartition(', batch')[0]} | {row['batch']} | {' | '.join(cells)} |")
    return lines


def _missing(sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What could not be run, and why."""
    rows = []
    for name, section in sections.items():
        if section["state"] in ("could not run", "stopped", "crashed"):
            rows.append(f"| {name} | all of it |" if not section.get("results") else f"| {name} | the rest |")
            rows[-1] += f" {section.get('reason', '')} |"
        rows += [f"| {name} | {m['part']} | {m['why']} |" for m in section.get("missing", [])]
    return ["", "## Could not be run", "", "| section | part | why |", "|---|---|---|", *rows] if rows else []


def _found(result: Result) -> str:
    if "error" in result:
        return str(result["error"]).replace("|", "/")
    return brief(_without(result, "part", "ok", "said")).replace("|", "/")


def _without(result: Result, *names: str) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in names}
