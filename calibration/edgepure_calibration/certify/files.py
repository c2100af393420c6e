"""What a certification leaves: JSON, the field's tables, a page, and a card in the bundle."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

from edgepure.bundle.edit import edit_bundle
from edgepure.errors import BundleError
from edgepure.files.atomic import write_text

from ..work import bundle_key
from .results import RADII, Certified

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


def markdown(found: Certified) -> str:
    """The card: first what is not covered, then the table, then how it was counted."""
    lines = ["# Certificates", "", *(f"- {text}" for text in found.warnings()), ""]
    lines += [
        "Certified accuracy: the share of images that are answered right *and* proven to stay so within the radius.",
        "",
    ]
    head = ["preset", "sigma", "calls", *(f"r = {r:g}" for r in RADII), "abstained", "answers an image"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for curve in found.curves:
        shares = (f"{100 * curve.share(r):.1f} %" for r in RADII)
        cells = [
            curve.name,
            f"{curve.sigma:.4g}",
            str(curve.unet_calls),
            *shares,
            str(curve.abstained),
            f"{curve.samples:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    best = (f"{100 * curve.share(r):.1f} % ({curve.name})" for r, curve in found.best())
    lines += ["| **best** |  |  | " + " | ".join(best) + " |  |  |", ""]
    s = found.settings
    counted = f"n {s.n}, n0 {s.chosen_by}, alpha {s.alpha:g}" + (
        "" if s.radius is None else f", until radius {s.radius:g} was settled"
    )
    facts = ", ".join(f"{key} {value}" for key, value in found.facts.items())
    return "\n".join([*lines, f"Rule of Cohen et al. 2019 (arXiv 1902.02918): {counted}. {facts}.", ""])


def write_card(bundle: str | PathLike[str], found: Certified, precision: str) -> None:
    """Put the card into the bundle, as Markdown and as JSON.

    Raises:
        BundleError: the bundle is not the one that was certified; it stays as it is.
    """
    with edit_bundle(bundle) as edit:
        if bundle_key(edit.manifest, precision) != found.bundle_sha256:
            raise BundleError(
                f"{bundle} does not hold the graphs and weights that were certified; certify it again for a card",
                code="E-card-bundle",
            )
        edit.write(CARD, markdown(found).encode())
        edit.write(CARD_JSON, (json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n").encode())
