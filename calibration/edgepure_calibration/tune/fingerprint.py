"""What the numbers of a study depend on, as short texts that can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from edgepure import Bundle
from edgepure.report.environment import environment

from ..attack_revision import ATTACK_REVISION
from .measuring import Measuring
from .parts import Part
from .settings import TuneSettings
from .space import calibrated_ssni


def fingerprint(
    bundle: Bundle,
    settings: TuneSettings,
    parts: tuple[Part, Part],
    calls: int | None,
    ms: float | None,
    methods: Sequence[str] | None,
    precisions: Sequence[str],
    whitebox: bool,
    provider: str,
) -> dict[str, str]:
    """What the numbers of a study depend on. Not the bundle's presets: tuning changes them."""
    ssni = {n: s.model_dump(mode="json") for n, s in calibrated_ssni(bundle.manifest).items()}
    device = {k: environment()[k] for k in ("device", "cores")} if ms is not None else {}
    protocol = {**settings.of_the_search(), "white-box": whitebox, "methods": sorted(methods or ()),
                "attacks": ATTACK_REVISION, "provider": provider, **device}  # fmt: skip
    return {
        "the bundle": digest({**_models(bundle), "ssni": ssni, "precisions": list(precisions)}),
        "the data": digest([parts[0].clean.sha256, parts[0].attacked.sha256]),
        "the budget": f"{calls} UNet calls" if ms is None else f"{ms:g} ms",
        "the settings of the search": digest(protocol),
    }


def measured_by(bundle: Bundle, measuring: Measuring, provider: str) -> str:
    """What the numbers of a finalist depend on besides itself: a short text, equal if the numbers would be."""
    parts = (measuring.part.clean, measuring.part.attacked, measuring.part.whitebox)
    attack = None if measuring.whitebox is None else measuring.whitebox.protocol()
    protocol = {"white-box": attack, "attacks": ATTACK_REVISION, "noise": measuring.noise_seed,
                "latency": measuring.latency_repeats, "provider": provider}  # fmt: skip
    return digest({**_models(bundle), "data": [part.sha256 for part in parts], **protocol})


def _models(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "files": {n: f.sha256 for n, f in manifest.files.items() if n.endswith((".onnx", ".bin", ".data"))},
        "graphs": {n: e.model_dump(mode="json") for n, e in manifest.graphs.items()},
        "schedule": manifest.schedule.model_dump(mode="json"),
    }


def digest(data: Any) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
