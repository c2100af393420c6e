"""The robustness card: one page that travels in the bundle, as Markdown and as JSON."""

from __future__ import annotations

import json
import re
from os import PathLike
from typing import Any

from edgepure.bundle.edit import edit_bundle
from edgepure.errors import BundleError, ConfigError
from edgepure.report.text import printable

from .protocol import Footnotes, digest
from .results import Evaluation
from .store import bundle_key
from .tables import mask_table, policy_table, summary_table

#: Where it lies in a bundle.
CARD, CARD_JSON = "robustness/card.md", "robustness/card.json"


def card(found: Evaluation) -> str:
    """The card as Markdown. No number on it is without its protocol."""
    notes = Footnotes()
    facts = found.facts
    lines = [
        f"# Robustness card: {_in_markdown(found.bundle)}",
        "",
        f"Measured on {facts['date']} with edgepure {facts['edgepure']} ({facts['engine']}; {facts['device']}). "
        f"Graphs and weights {found.bundle_sha256[:16]}.",
        "",
        "Attacked through the bundle's differentiable twin; every number was answered by the deployed graphs.",
        "",
    ]
    for table in (summary_table(found, notes), mask_table(found, notes), policy_table(found, notes)):
        if table is not None:
            lines += [f"## {table.title}", "", table.note, "", table.markdown(), ""]
    flips = [a.agreement for p in found.presets for a in p.attacks if a.agreement is not None]
    if flips:
        images, differ = sum(a.images for a in flips), sum(a.flips for a in flips)
        lines += [f"Twin and engine, with the same noise: {differ} of {images} answers to attacked images differ.", ""]
    lines += ["## What was not tested", "", *(f"- {text}" for text in found.not_tested()), ""]
    lines += ["## Protocols", "", *(f"- {line}" for line in notes.lines()), ""]
    return "\n".join(lines)


def _in_markdown(text: str) -> str:
    """A name that anybody may have chosen, on one line and without links, pictures and HTML."""
    return re.sub(r"([\\`*_\[\]<>&!|#])", r"\\\1", printable(" ".join(text.split())))


def write_card(bundle: str | PathLike[str], found: Evaluation, precision: str = "fp32") -> None:
    """Put both files into the bundle.

    Raises:
        ConfigError: nothing was attacked, so there is nothing to put on a card.
        BundleError: the bundle is not the one that was evaluated; it stays as it is.
    """
    if not any(preset.attacks for preset in found.presets):
        raise ConfigError("no attack was run, so there is no robustness to put on a card")
    with edit_bundle(bundle) as edit:
        if bundle_key(edit.manifest, precision) != found.bundle_sha256:
            raise BundleError(
                f"{bundle} does not hold the graphs and weights that were evaluated; evaluate it again for a card"
            )
        edit.write(CARD, card(found).encode())
        protocols: dict[str, Any] = {}
        data = {"format": 1, **_with_keys(found.to_dict(), protocols), "protocols": protocols}
        text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False)
        edit.write(CARD_JSON, (text + "\n").encode())


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
