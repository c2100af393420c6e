"""Certificates of the fp32 graphs, carried to a variant that is being made: few answers of both to the same noise.

With the same noise the share of answers that differ is bounded from few pairs, and the class keeps its share less that
bound (arXiv 2305.19521). So an int8 variant needs no certification of its own; what that costs in radius is reported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgepure.errors import ConfigError, words_of
from edgepure.methods.planner import Planner
from edgepure.methods.presets import Preset
from edgepure.purify.certificate import NORMAL, Certificate, CertifySettings, carried
from edgepure.purify.certify import Certifier
from edgepure.purify.purifier import Purifier
from edgepure.rows.noise import SeededNoise
from edgepure.types import Float32

from ..digest import image_key

#: Told the share that is done.
OnShare = Callable[[float], None]
#: What reading a file of somebody else may raise.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError)


@dataclass(frozen=True)
class Counted:
    """Certificates of one preset that were counted before.

    Attributes:
        name: of the preset.
        preset: what they are about.
        settings: how they were counted.
        images: those among the given ones that they are about, ``[N, C, H, W]``.
        certificates: of these, in order; none abstains.
    """

    name: str
    preset: Preset
    settings: CertifySettings
    images: Float32
    certificates: tuple[Certificate, ...]


def read_certificates(
    path: str | PathLike[str], images: Float32, planner: Planner, bundle: str, engine: str
) -> list[Counted]:
    """What `edgepure certify` wrote as ``certificates.json``, as far as it is about some of these images.

    Args:
        images: ``[B, C, H, W]`` in [0, 1]. Those that were rounded to 8 bits for the certificates are found, too.
        planner: of the bundle.
        bundle: the key of the fp32 graphs (`edgepure_calibration.work.bundle_key`).
        engine: what the answers of both are counted with, in words (`edgepure.engines.kinds.engine_words`).

    Raises:
        ConfigError: it is no such file (``E-carry-file``), is about other graphs (``E-carry-bundle``) or about none of
            the images (``E-carry-images``), was counted on another engine (``E-carry-engine``), or its certificates
            are not exact (``E-carry-exact``) or of a cascade (``E-certificate-cascade``).
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        key, known_engine = data["bundle_sha256"], data["facts"]["engine"]
    except _UNREADABLE as error:
        raise _no_file(path, error) from None
    if key != bundle:
        raise ConfigError(
            f"the certificates in {path} are about other graphs than this bundle's in fp32; certify it again",
            code="E-carry-bundle",
        )
    if known_engine != engine:
        raise ConfigError(
            f"the certificates in {path} were counted on {known_engine}, and this is {engine}: two engines round "
            "differently, so theirs are two functions; certify it again on this one",
            code="E-carry-engine",
        )
    try:
        settings = CertifySettings(int(data["n"]), int(data["n0"]), float(data["alpha"]), data["radius"])
        tables = [table for table in data["presets"] if table.get("carried_to") is None]
        presets = {table["preset"]: Preset.parse(table["settings"]) for table in tables}
        known = {
            table["preset"]: _certificates(table, settings, planner.certified_sigma(presets[table["preset"]]))
            for table in tables
            if presets[table["preset"]].cascade is None
        }
    except _UNREADABLE as error:
        raise _no_file(path, error) from None
    if len(known) < len(presets):
        raise ConfigError(
            f"{path} has certificates of a cascade, which are about several smoothed functions and cannot be carried; "
            "certify the other presets alone, or the variant itself",
            code="E-certificate-cascade",
        )
    both = [*images, *(np.rint(images.astype(np.float64) * 255.0) / 255.0).astype(np.float32)]
    found = []
    for name, preset in presets.items():
        about = {key: image for image in both if (key := image_key(image)) in known[name]}
        kept = {key: image for key, image in about.items() if not known[name][key].abstained}
        for certificate in (known[name][key] for key in kept):
            if not certificate.exact:
                raise ConfigError(
                    f"the certificate of image {certificate.name} is not exact: its noise is added to floats, which "
                    "another precision may do otherwise; certify 8-bit images with a preset that sees its input once",
                    code="E-carry-exact",
                )
        if kept:
            chosen = tuple(known[name][key] for key in kept)
            found.append(Counted(name, preset, settings, np.stack(list(kept.values())), chosen))
    if not found:
        raise ConfigError(
            f"none of the images has a certificate in {path}; give the images that were certified as --data",
            code="E-carry-images",
        )
    return found


def carry_to(
    variant: Purifier,
    fp32: Purifier,
    counted: Sequence[Counted],
    pairs: int,
    seed: int,
    used: int,
    on_share: OnShare | None = None,
) -> dict[str, Any]:
    """Carry certificates, and say what it costs.

    Args:
        variant, fp32: purifiers of both.
        pairs: answers of both for each image, with votes that nothing has used: neither the counting nor the gate.
        seed: of their noise.
        used: votes from 0 on that the variant was chosen by.

    Returns:
        Plain data: each image with both radii, and what was lost over all of them.
    """
    total, done = sum(len(part.images) for part in counted), 0
    presets = []
    for part in counted:
        start = max(part.settings.chosen_by + part.settings.n, used)
        votes, source = range(start, start + pairs), SeededNoise(seed)
        certifiers = [Certifier(purifier, part.preset, part.settings) for purifier in (fp32.graphs, variant.graphs)]
        images = []
        for number, (image, before) in enumerate(zip(part.images, part.certificates, strict=True)):
            answers = []
            for purifier, certifier in zip((fp32, variant), certifiers, strict=True):
                with purifier.turns.alone():
                    answers.append(certifier.answers(image[None], source, votes, [number]))
            differing = int((answers[0] != answers[1]).sum())
            after = carried(before, differing, pairs, part.settings.alpha)
            images.append(_row(before, after, differing))
            done += 1
            if on_share is not None:
                on_share(done / total)
        lost = [row["lost"] for row in images]
        presets.append(
            {
                "preset": part.name,
                "settings": part.preset.model_dump(mode="json", include={"method", "mask"}),
                "alpha": part.settings.alpha,
                "wrong_at_most": 2.0 * part.settings.alpha,
                "pairs": pairs,
                "abstain_now": sum(row["label"] is None for row in images),
                "median_lost": median(lost),
                "most_lost": max(lost),
                "images": images,
            }
        )
    return {"presets": presets}


def pair_calls(fp32: Purifier, counted: Sequence[Counted], pairs: int) -> int:
    """UNet calls of one precision that `carry_to` takes."""
    return sum(len(part.images) * pairs * fp32.plan(part.preset).unet_calls for part in counted)


def _row(before: Certificate, after: Certificate, differing: int) -> dict[str, Any]:
    return {
        "name": before.name,
        "label": after.label,
        "sigma": before.sigma,
        "radius_fp32": before.radius,
        "radius": after.radius,
        "lost": before.radius - after.radius,
        "probability": after.probability,
        "differing": differing,
    }


def _no_file(path: str | PathLike[str], error: Exception) -> ConfigError:
    why = words_of(error)
    return ConfigError(
        f"{path} holds no certificates that could be carried ({why}); give the certificates.json of `edgepure certify`",
        code="E-carry-file",
    )


def _certificates(table: Mapping[str, Any], settings: CertifySettings, sigma: float) -> dict[str, Certificate]:
    return {entry["sha256"]: _certificate(entry, settings, sigma) for entry in table["images"]}


def _certificate(entry: Mapping[str, Any], settings: CertifySettings, sigma: float) -> Certificate:
    """A certificate that says what its counts prove, so that a number in the file cannot say more."""
    found = Certificate(**{name: entry[name] for name in Certificate.__dataclass_fields__})
    if found.label is None:
        return found
    if not 0 < found.count <= found.samples <= settings.n + settings.chosen_by:
        raise ValueError(f"the counts of image {found.name} do not fit the settings")
    if not math.isclose(found.sigma, sigma, rel_tol=1e-9):
        raise ValueError(f"the sigma {found.sigma:g} of image {found.name} is not that of its preset")
    proven = settings.tally(sigma).proven(found.count, found.samples)
    most = min(proven + 1e-9, 1.0 - 1e-15)
    if not (0.5 < found.probability <= most and found.radius <= sigma * NORMAL.inv_cdf(most) + 1e-6):
        raise ValueError(f"the certificate of image {found.name} says more than its counts prove")
    return found
