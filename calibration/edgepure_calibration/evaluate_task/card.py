"""The robustness card of a task: one page that travels in the bundle, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from edgepure.bundle.edit import edit_bundle
from edgepure.bundle.manifest import Manifest
from edgepure.errors import BundleError
from edgepure.report.text import in_markdown

from ..truth.metrics import Score
from ..work import bundle_key
from .run import TaskEvaluated, untested

#: Where it lies in a bundle.
CARD, CARD_JSON = "robustness/card.md", "robustness/card.json"


def write_card(
    bundle: str | PathLike[str], found: TaskEvaluated, precision: str = "fp32", *, anew: bool = False
) -> tuple[str, ...]:
    """Put the card into the bundle.

    What earlier runs found of the same graphs stays on it: presets and bounds that this run did not attack, and those
    that it attacked more weakly (fewer images, or fewer steps times noises). ``anew``: nothing of it stays.

    Returns:
        The presets of which an earlier run was kept although this one attacked them again.

    Raises:
        BundleError: the bundle is not the one that was evaluated; it stays as it is.
    """
    with edit_bundle(bundle) as edit:
        if bundle_key(edit.manifest, precision) != found.bundle_sha256:
            raise BundleError(
                f"{bundle} does not hold the graphs and weights that were evaluated; evaluate it again for a card",
                code="E-card-bundle",
            )
        mine, earlier = _runs(found), {} if anew else _earlier(edit.root, edit.manifest, found)
        kept = [key for key in mine if key in earlier and _effort(earlier[key]) > _effort(mine[key])]
        runs = {**earlier, **mine, **{key: earlier[key] for key in kept}}
        tested = {run["row"]["preset"] for run in runs.values()}
        bounds = sorted({run["attack"]["bounded"] for run in runs.values()})
        data = {
            "format": 1, "task": found.kind, "bundle_sha256": found.bundle_sha256,
            "runs": [runs[key] for key in sorted(runs)], "not_tested": untested(found.all_presets, tested, bounds),
        }  # fmt: skip
        edit.write(CARD, _markdown(found.bundle, data).encode())
        edit.write(CARD_JSON, (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    return tuple(runs[key]["row"]["preset"] or "none" for key in kept)


def _runs(found: TaskEvaluated) -> dict[str, dict[str, Any]]:
    """Each row with its protocol, by preset and what is bounded."""
    common = {
        "attack": {"bounded": found.attack.bounded, "steps": found.attack.steps, "eot": found.attack.eot},
        "protocol": list(found.protocol), "facts": dict(found.facts), "data_sha256": found.truth.sha256,
        "images": len(found.truth),
    }  # fmt: skip
    return {_key(run): run for run in ({"row": row.to_dict(), **common} for row in found.rows)}


def _key(run: Mapping[str, Any]) -> str:
    return f"{run['attack']['bounded']}: {run['row']['preset'] or ''}"


def _effort(run: Mapping[str, Any]) -> tuple[int, int]:
    return int(run["images"]), int(run["attack"]["steps"]) * int(run["attack"]["eot"])


def _earlier(root: Path, manifest: Manifest, found: TaskEvaluated) -> dict[str, dict[str, Any]]:
    """What is on the card that the bundle has, if it is of the same graphs and can be read."""
    if CARD_JSON not in manifest.files:
        return {}
    try:
        data = json.loads((root / CARD_JSON).read_text(encoding="utf-8"))
        if data["bundle_sha256"] != found.bundle_sha256 or data["task"] != found.kind:
            return {}
        runs = {_key(run): run for run in data["runs"]}
        for run in runs.values():
            _effort(run)
            _line(run, 0)
        return runs
    except (OSError, KeyError, TypeError, ValueError, AttributeError):  # of another version
        return {}


def _markdown(name: str, data: Mapping[str, Any]) -> str:
    """The card. No number on it is without its protocol."""
    runs, notes = data["runs"], []
    rows = []
    for run in runs:
        facts = run["facts"]
        note = (
            f"{'; '.join(run['protocol'])}; {facts['date']}, edgepure {facts['edgepure']}, {facts['engine']}; data "
            f"{run['data_sha256'][:16]}"
        )
        if note not in notes:
            notes.append(note)
        rows.append(_line(run, notes.index(note) + 1))
    metric = runs[0]["row"]["clean"]["name"]
    lines = [
        f"# Robustness card: {in_markdown(name)}",
        "",
        f"Task: {data['task']}. {metric} in percent, 95 % intervals over images. Attacked by the exact "
        "gradients of the bundle's own graphs; every number was answered by the deployed graphs. Graphs and weights "
        f"{data['bundle_sha256'][:16]}.",
        "",
        "| preset | UNet calls | attack | clean | attacked without it | attacked through it | protocol |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "## What was not tested",
        "",
        *(f"- {line}" for line in data["not_tested"]),
        "",
        "## Protocols",
        "",
        *(f"- [{number}] {note}" for number, note in enumerate(notes, 1)),
        "",
    ]
    return "\n".join(lines)


def _line(run: Mapping[str, Any], number: int) -> str:
    row = run["row"]
    scores = [str(Score(**row[name])) for name in ("clean", "transferred", "attacked")]
    cells = [in_markdown(row["preset"] or "none"), row["unet_calls"], run["attack"]["bounded"], *scores]
    return f"| {' | '.join(map(str, cells))} | [{number}] |"
