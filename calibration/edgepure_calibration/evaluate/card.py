"""The robustness card: one page that travels in the bundle, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from edgepure.bundle.edit import edit_bundle
from edgepure.bundle.manifest import Manifest
from edgepure.errors import BundleError, ConfigError
from edgepure.report.text import in_markdown

from ..digest import digest
from ..work import bundle_key, former_bundle_key
from .merging import Earlier, earlier_of, merged
from .outcomes import OUTCOMES_FILE, outcomes_of
from .results import Evaluated
from .tables import cross_table, mask_table, policy_table, summary_table

#: Where it lies in a bundle.
CARD, CARD_JSON = "robustness/card.md", "robustness/card.json"


def card(found: Evaluated) -> str:
    """The card as Markdown. No number on it is without its protocol."""
    notes = found.footnotes()
    facts = found.facts
    lines = [
        f"# Robustness card: {in_markdown(found.bundle)}",
        "",
        f"Measured on {facts['date']} with edgepure {facts['edgepure']} ({facts['engine']}; {facts['device']}). "
        f"Graphs and weights {found.bundle_sha256[:16]}.",
        "",
        "Attacked through the bundle's differentiable twin; every number was answered by the deployed graphs.",
        "",
    ]
    for table in (
        summary_table(found, notes),
        mask_table(found, notes),
        cross_table(found, notes),
        policy_table(found, notes),
    ):
        if table is not None:
            lines += [f"## {table.title}", "", table.note, "", table.markdown(), ""]
    flips = [a.agreement for p in found.presets for a in p.attacks if a.agreement is not None]
    if flips:
        images, differ = sum(a.images for a in flips), sum(a.flips for a in flips)
        lines += [f"Twin and engine, with the same noise: {differ} of {images} answers to attacked images differ.", ""]
    lines += ["## What was not tested", "", *(f"- {text}" for text in found.not_tested()), ""]
    lines += ["## Protocols", "", *(f"- {line}" for line in notes.lines()), ""]
    return "\n".join(lines)


def write_card(
    bundle: str | PathLike[str], found: Evaluated, precision: str = "fp32", *, anew: bool = False
) -> tuple[str, ...]:
    """Put the card and the outcomes of each image into the bundle.

    What an earlier run has measured of the same graphs stays on the card: presets and attacks that this run did not
    measure, and those that it measured more weakly (fewer images, steps, EOT copies, queries, restarts or seeds).
    ``anew``: nothing of it stays.

    Returns:
        What was kept although this run measured it again, in words.

    Raises:
        ConfigError: nothing was attacked, so there is nothing to put on a card.
        BundleError: the bundle is not the one that was evaluated; it stays as it is.
    """
    if not any(preset.attacks for preset in found.presets):
        raise ConfigError("no attack was run, so there is no robustness to put on a card", code="E-card-empty")
    with edit_bundle(bundle) as edit:
        if bundle_key(edit.manifest, precision) != found.bundle_sha256:
            raise BundleError(
                f"{bundle} does not hold the graphs and weights that were evaluated; evaluate it again for a card",
                code="E-card-bundle",
            )
        earlier = Earlier() if anew else _earlier(edit.root, edit.manifest, precision)
        whole, kept = merged(found, earlier)
        edit.write(CARD, card(whole).encode())
        protocols: dict[str, Any] = {}
        data = {"format": 1, **_with_keys(whole.to_dict(), protocols), "protocols": protocols}
        text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False)
        edit.write(CARD_JSON, (text + "\n").encode())
        edit.write_npz(OUTCOMES_FILE, outcomes_of(found).to_arrays())
    return kept


def _earlier(root: Path, manifest: Manifest, precision: str) -> Earlier:
    """What is on the card that the bundle has, if it is of the same graphs and can be read."""
    if CARD_JSON not in manifest.files:
        return Earlier()
    try:
        data = json.loads((root / CARD_JSON).read_text(encoding="utf-8"))
        if data["bundle_sha256"] not in (bundle_key(manifest, precision), former_bundle_key(manifest, precision)):
            return Earlier()
        return earlier_of(_without_keys(data, data["protocols"]))
    except (OSError, KeyError, TypeError, ValueError, AttributeError):  # of another version
        return Earlier()


def _without_keys(data: Any, protocols: Mapping[str, Any]) -> Any:
    """The reverse of `_with_keys`."""
    if isinstance(data, list):
        return [_without_keys(part, protocols) for part in data]
    if not isinstance(data, dict):
        return data
    return {
        name: protocols[part] if name == "protocol" and isinstance(part, str) else _without_keys(part, protocols)
        for name, part in data.items()
    }


def _with_keys(data: Any, protocols: dict[str, Any]) -> Any:
    """Plain data with a key in the place of every protocol, which is written once, under that key in ``protocols``."""
    if isinstance(data, list):
        return [_with_keys(part, protocols) for part in data]
    if not isinstance(data, dict):
        return data
    kept = {}
    for name, part in data.items():
        if name == "protocol":
            key = digest(part)[:16]
            protocols[key], kept[name] = part, key
        else:
            kept[name] = _with_keys(part, protocols)
    return kept
