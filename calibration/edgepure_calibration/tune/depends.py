"""What the numbers of a tuning run depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepure import Bundle
from edgepure.report.environment import environment

from ..attacks.revision import ATTACK_REVISION
from ..digest import digest
from ..provider import ProviderSettings
from ..work import bundle_key
from .measuring import Measuring
from .settings import TuneSettings
from .space import calibrated_ssni
from .splits import Split


def search_depends(
    bundle: Bundle, settings: TuneSettings, splits: tuple[Split, Split], precisions: Sequence[str], on: ProviderSettings
) -> dict[str, Any]:
    """What the numbers of the trials depend on. Not the bundle's presets: tuning changes them."""
    device = {name: environment()[name] for name in ("device", "cores")} if settings.ms is not None else {}
    return {
        "bundle": _models(bundle, precisions),
        "ssni": {name: spec.model_dump(mode="json") for name, spec in calibrated_ssni(bundle.manifest).items()},
        "precisions": list(precisions),
        "data": [splits[0].clean.sha256, splits[0].attacked.sha256],
        "settings": settings.of_the_search(),
        "attacks": ATTACK_REVISION,
        "provider": on.key(bundle.manifest)["provider"],
        **device,
    }


def measured_by(bundle: Bundle, measuring: Measuring, on: ProviderSettings) -> str:
    """What the numbers of a finalist depend on besides itself: a short text, equal if the numbers would be."""
    split = measuring.split
    return digest(
        {
            "bundle": _models(bundle, ("fp32", *bundle.manifest.variants)),
            "data": [part.sha256 for part in (split.clean, split.attacked, split.whitebox)],
            "white-box": None if measuring.whitebox is None else measuring.whitebox.protocol(),
            "attacks": ATTACK_REVISION,
            "noise": measuring.noise_seed,
            "latency": measuring.latency_repeats,
            "provider": on.key(bundle.manifest)["provider"],
        }
    )


def _models(bundle: Bundle, precisions: Sequence[str]) -> dict[str, str]:
    return {precision: bundle_key(bundle.manifest, precision) for precision in precisions}
