"""Certifies a data set, image by image, and goes on where it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgepure import Preset, Purifier, __version__
from edgepure.engines.kinds import engine_words
from edgepure.errors import ConfigError
from edgepure.images.dataset import LabelledImages, load_labelled
from edgepure.purify.cascade import certifier_of
from edgepure.purify.certificate import Certificate, CertifySettings
from edgepure.rows.noise import noise_source
from edgepure.types import Progress

from ..data_checks import check_pairs
from ..digest import image_key
from ..progress import Meter
from ..provider import ProviderSettings
from ..work import Work, open_work
from .carry import carry
from .results import Certified, Curve, Entry

#: Counted up when certificates are counted in another way.
REVISION = 2


@dataclass(frozen=True)
class CertifyRequest:
    """What is certified.

    Attributes:
        presets: by name; each must have a certified sigma.
        settings: how much is counted.
        every: take every so-manieth image of the data set, as the field does (20 for CIFAR-10).
        limit: at most so many of those.
        seed: of the noise; None: secret.
        carry_to: a variant of the bundle that the certificates are carried to as well, with ``pairs`` answers of both
            precisions to the same noise for each image.
        eight_bits: round the images to 8 bits first; the certificates are exact then, and about the rounded images.
    """

    presets: Mapping[str, Preset]
    settings: CertifySettings = field(default_factory=CertifySettings)
    every: int = 1
    limit: int | None = None
    seed: int | None = None
    eight_bits: bool = False
    carry_to: str | None = None
    pairs: int = 1000

    def indices(self, count: int) -> list[int]:
        """Positions in a data set of ``count`` images."""
        return list(range(0, count, self.every))[: self.limit]


def certify_data(
    bundle: str | PathLike[str],
    data: str | PathLike[str],
    request: CertifyRequest,
    *,
    on: ProviderSettings = ProviderSettings(),  # noqa: B008 - it cannot change
    work: Path | None = None,
    resize: bool = False,
    on_progress: Progress | None = None,
) -> Certified:
    """Certify the images of a data set with the deployed graphs of a bundle.

    Args:
        data: labelled images, as `edgepure.images.dataset` reads them.
        work: folder for finished images; the same call goes on there. None: nothing is kept.

    Raises:
        ConfigError: a preset has no certificate (with the reason), or the data cannot be used.
    """
    if request.carry_to is not None and any(preset.cascade is not None for preset in request.presets.values()):
        raise ConfigError(
            "certificates of a cascade cannot be carried, as they are about several smoothed functions; certify the "
            "variant itself (--precision)",
            code="E-certificate-cascade",
        )
    check_pairs(request.pairs)
    with ExitStack() as held:
        purifier = held.enter_context(on.open(bundle))
        purifier.bundle.manifest.require_classifier("a certificate")
        images = load_labelled(data, purifier.bundle.manifest.image, purifier.classes, need_labels=True, resize=resize)
        chosen = images.pick(request.indices(len(images)))
        if request.eight_bits:
            rounded = (np.rint(chosen.images.astype(np.float64) * 255.0) / 255.0).astype(np.float32)
            chosen = LabelledImages(rounded, chosen.labels, chosen.names)
        manifest = purifier.bundle.manifest
        rule = {**asdict(request.settings), "n0": request.settings.chosen_by, "revision": REVISION}
        depends = {"what": "certificates", **on.key(manifest), **rule, "seed": request.seed}
        variant = None
        if request.carry_to is not None:
            there = replace(on, precision=request.carry_to)
            variant = held.enter_context(there.open(purifier.bundle))
        _check(request, chosen, purifier, *([] if variant is None else [variant]))
        with open_work(work, depends) as kept:
            calls = [purifier.planner.answer_calls(preset) for preset in request.presets.values()]
            meter = Meter(sum(calls) * len(chosen) * (request.settings.n + request.settings.chosen_by), on_progress)
            curves = tuple(
                _curve(purifier, name, preset, chosen, request, kept, meter) for name, preset in request.presets.items()
            )
            if variant is not None:
                curves += tuple(
                    carry(
                        curve,
                        request.presets[curve.name],
                        chosen,
                        purifier,
                        variant,
                        request.settings,
                        pairs=request.pairs,
                        source=noise_source(request.seed),
                        graphs=there.key(manifest)["bundle"],
                        work=kept.depending({"carry_to": there.key(manifest), **curve.settings}),
                        on_progress=on_progress,
                    )
                    for curve in curves
                )
        key = on.key(manifest)["bundle"]
        facts = {
            "bundle": manifest.name,
            "edgepure": __version__,
            "engine": engine_words(on.provider),
            "precision": on.precision,
            "images": f"{len(chosen)} of {len(images)}, every {request.every}",
            "date": date.today().isoformat(),
        }
        return Certified(request.settings, curves, purifier.image_shape, key, facts)


def _check(request: CertifyRequest, data: LabelledImages, *purifiers: Purifier) -> None:
    """What cannot be certified is said now, and not after hours of counting."""
    source, ids = noise_source(request.seed), request.indices(len(data) * request.every)
    for preset in request.presets.values():
        for purifier in purifiers:
            certifier_of(purifier.graphs, preset, request.settings).check(data.images, source, data.names, ids)


def _curve(
    purifier: Purifier,
    name: str,
    preset: Preset,
    data: LabelledImages,
    request: CertifyRequest,
    work: Work,
    meter: Meter,
) -> Curve:
    certifier = certifier_of(purifier.graphs, preset, request.settings)
    calls = purifier.planner.answer_calls(preset)
    work = work.depending(_about(preset))
    found: dict[int, Certificate] = {}
    whole = calls * (request.settings.n + request.settings.chosen_by)
    ids = request.indices(len(data) * request.every)
    for index, image in enumerate(data.images):
        known = work.recall(_what(image, ids[index]))
        if known is not None:
            found[index] = Certificate(**{**known, "name": data.names[index]})
            meter.known(whole, name)
    left = [index for index in range(len(data)) if index not in found]

    def done(position: int, certificate: Certificate) -> None:
        index = left[position]
        found[index] = certificate
        work.remember(_what(data.images[index], ids[index]), certificate.to_dict())
        meter.add(whole, f"{name}, {len(found)} of {len(data)} images")

    with purifier.turns.alone():
        certifier.run(
            data.images[left],
            noise_source(request.seed),
            [data.names[i] for i in left],
            done,
            ids=[ids[i] for i in left],
        )
    assert data.labels is not None
    entries = [Entry(ids[i], int(data.labels[i]), found[i], image_key(data.images[i])) for i in range(len(data))]
    about = _about(preset)
    return Curve(name, certifier.sigma, calls, tuple(entries), about, until=request.settings.radius)


def _about(preset: Preset) -> dict[str, Any]:
    """What of a preset its certificates are about."""
    about = {"method", "mask"} if preset.cascade is None else {"method", "votes", "cascade"}
    return preset.model_dump(mode="json", include=about)


def _what(image: Any, number: int) -> dict[str, Any]:
    """What an image's certificate depends on beside the settings: the image, and its place in the noise stream."""
    return {"image": image_key(image), "number": number}


def presets_of(sigmas: Sequence[float], steps: int) -> dict[str, Preset]:
    """Denoised smoothing with each of these noises, by the names of the certified presets."""
    return {
        f"smooth-{float(sigma)}" + (f"-{steps}" if steps > 1 else ""): Preset.parse(
            {"method": {"method": "smooth", "sigma": sigma, "steps": steps}}
        )
        for sigma in sigmas
    }
