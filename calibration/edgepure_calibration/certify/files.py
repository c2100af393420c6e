"""What a certification leaves: JSON, the field's tables, a page, and a card in the bundle."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from edgepure.bundle.edit import edit_bundle
from edgepure.bundle.manifest import Manifest
from edgepure.errors import BundleError
from edgepure.files.atomic import write_text

from ..work import bundle_key
from .results import Certified, not_covered

#: Where the card lies in a bundle.
CARD, CARD_JSON = "robustness/certificates.md", "robustness/certificates.json"


def write_results(folder: Path, found: Certified) -> list[Path]:
    """``certificates.json`` and a tab-separated table for each preset, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "certificates.json"]
    write_text(paths[0], json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n")
    for curve in found.curves:
        paths.append(folder / f"{curve.name}.tsv")
        write_text(paths[-1], curve.tsv())
    return paths


def markdown(tables: Sequence[Mapping[str, Any]], elements: int) -> str:
    """The card: first what is not covered, then the table, then how each row was counted.

    Args:
        tables: of presets, as `Certified.to_dict` has them.
        elements: values of an image.
    """
    lines = ["# Certificates", "", *(f"- {text}" for text in not_covered(tables, elements)), ""]
    lines += [
        "Certified accuracy: the share of images that are answered right *and* proven to stay so within the radius.",
        "",
    ]
    radii = sorted({float(entry["radius"]) for table in tables for entry in table["table"]})
    head = ["preset", "sigma", "calls", *(f"r = {r:g}" for r in radii), "abstained", "answers an image"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    best = dict.fromkeys(radii, (-1.0, ""))
    counted: dict[str, list[str]] = {}
    for table in tables:
        name, shares = str(table["preset"]), {float(e["radius"]): float(e["share"]) for e in table["table"]}
        best |= {r: (share, name) for r, share in shares.items() if share > best[r][0]}
        cells = [name, f"{table['sigma']:.4g}", f"{table['unet_calls']}"]
        cells += [f"{100 * shares[r]:.1f} %" if r in shares else "-" for r in radii]
        lines.append("| " + " | ".join([*cells, f"{table['abstained']}", f"{table['samples']:.0f}"]) + " |")
        counted.setdefault(_counted(table), []).append(name)
    found = (f"{100 * share:.1f} % ({name})" for share, name in best.values())
    lines.append("| **best** |  |  | " + " | ".join(found) + " |  |  |")
    lines += ["", "Rule of Cohen et al. 2019 (arXiv 1902.02918).", ""]
    return "\n".join([*lines, *(f"- {', '.join(names)}: {how}" for how, names in counted.items()), ""])


def write_card(bundle: str | PathLike[str], found: Certified, precision: str) -> None:
    """Put the card into the bundle, as Markdown and as JSON. What earlier runs certified of other presets, or in other
    precisions, stays on it, as far as it is about the graphs that the bundle has; a weaker run of the same preset
    replaces nothing.

    Raises:
        BundleError: the bundle is not the one that was certified; it stays as it is.
    """
    with edit_bundle(bundle) as edit:
        if bundle_key(edit.manifest, precision) != found.bundle_sha256:
            raise BundleError(
                f"{bundle} does not hold the graphs and weights that were certified; certify it again for a card",
                code="E-card-bundle",
            )
        data, elements = found.to_dict(), math.prod(found.image_shape)
        whole = {_about(table): table for table in data["presets"]}
        for table in _earlier(Path(bundle), edit.manifest):
            new = whole.setdefault(_about(table), table)
            if _stronger(table, new):
                whole[_about(table)] = table
        data["presets"] = list(whole.values())
        data["not_covered"] = list(not_covered(data["presets"], elements))
        edit.write(CARD, markdown(data["presets"], elements).encode())
        edit.write(CARD_JSON, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def _earlier(bundle: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """Tables of the card in a bundle that are about its present graphs. One that cannot be read has none."""
    try:
        data = json.loads((bundle / CARD_JSON).read_text(encoding="utf-8"))
        found = [table for table in data["presets"] if table["bundle_sha256"] == _key(manifest, table)]
        markdown(found, 1)
        _ = [_stronger(table, table) for table in found]
        if not all(re.fullmatch(r"[\w.+ -]{1,100}", part) for table in found for part in _about(table)):
            return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return found


def _about(table: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a new table replaces an earlier one of: the preset in a precision, counted whole or until a radius."""
    return table["preset"], table["facts"]["precision"], str(table["radius"])


def _stronger(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one table of a preset has more images, more answers or less risk than another, and less of nothing."""
    first, second = ((len(t["images"]), int(t["n"]), -float(t["wrong_at_most"])) for t in (one, other))
    same = one["settings"] == other["settings"]
    return same and first != second and all(a >= b for a, b in zip(first, second, strict=True))


def _key(manifest: Manifest, table: Mapping[str, Any]) -> str | None:
    precision = table["facts"]["precision"]
    known = precision == "fp32" or precision in manifest.variants
    return bundle_key(manifest, precision) if known else None


def _counted(table: Mapping[str, Any]) -> str:
    """How a table was counted."""
    until = "" if table["radius"] is None else f", until radius {table['radius']:g} was settled"
    facts = ", ".join(f"{key} {value}" for key, value in table["facts"].items())
    return f"n {table['n']}, n0 {table['n0']}, alpha {table['alpha']:g}{until}; {facts}."
