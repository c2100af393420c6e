"""Two certifications of the same images side by side, radius by radius.

    python -m samples.cifar10.compare_certificates A.json B.json

Files of `edgepure certify`. Of the images that both have: the share that each answers right and certifies at every
radius, with Clopper-Pearson intervals of 95 %, and the exact test of the images that only one of them has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import binomtest

from edgepure.intervals import clopper_pearson


def certificates(path: Path, sigma: float) -> dict[str, Any]:
    """The entries of one noise, by the hash of the image."""
    (table,) = (table for table in json.loads(path.read_text("utf-8"))["presets"] if table["sigma"] == sigma)
    return {entry["sha256"]: entry for entry in table["images"]}


def main(
    first: Annotated[Path, typer.Argument(help="certificates.json")],
    second: Annotated[Path, typer.Argument(help="another one")],
    sigma: Annotated[float, typer.Option()] = 0.25,
    radii: Annotated[list[float], typer.Option("--radius")] = [0.0, 0.25, 0.5],  # noqa: B006
) -> None:
    one, other = certificates(first, sigma), certificates(second, sigma)
    common = [key for key in one if key in other]
    if not common:
        raise typer.BadParameter("the two files have no image in common")
    for name, table in ((first.stem, one), (second.stem, other)):
        print(f"{name}: {sum(not table[key]['radius'] for key in common)} of {len(common)} abstained")
    for radius in radii:
        right = [np.array([_holds(table[key], radius) for key in common]) for table in (one, other)]
        only = [int((mine & ~theirs).sum()) for mine, theirs in (right, right[::-1])]
        p = binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
        words = [
            f"{100 * share.mean():.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            for share in right
            for low, high in [clopper_pearson(int(share.sum()), len(common))]
        ]
        print(f"r = {radius:g}: {words[0]}, {words[1]}; only {only[0]}, {only[1]}; p {p:.2g}")


def _holds(entry: dict[str, Any], radius: float) -> bool:
    return entry["label"] == entry["truth"] and bool(entry["radius"]) and entry["radius"] >= radius


if __name__ == "__main__":
    typer.run(main)
