"""Documents: manifests, presets, schedules."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import edgepure
from edgepure.bundle.manifest import Manifest

from .kind import Kind
from .mutate import as_json, changed, damaged


def own_manifest() -> Any:
    """``bundle.json`` of the digits, as plain data."""
    return json.loads((edgepure.demo_bundle() / "bundle.json").read_text(encoding="utf-8"))


class Manifests(Kind):
    """``bundle.json``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._document, self._text = own_manifest(), as_json(own_manifest())

    def attempt(self, random: Random) -> None:
        if random.random() < 0.3:
            Manifest.from_json(damaged(self._text, random, self._text))
        else:
            Manifest.from_json(as_json(changed(self._document, random)))


class Presets(Kind):
    """Presets of users, compiled to rows."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._presets = list(own_manifest()["presets"].values())
        self._planner = Manifest.from_json(as_json(own_manifest())).planner()

    def attempt(self, random: Random) -> None:
        preset = edgepure.Preset.parse(changed(random.choice(self._presets), random))
        self._planner.plan(preset, score_norm=random.choice((None, 0.0, 5.0, 1e9)))
        self._planner.probe(preset)


class Schedules(Kind):
    """Noise schedules."""

    def attempt(self, random: Random) -> None:
        kind = random.choice(("linear", "cosine", "betas", "vp", "edm"))
        document: dict[str, Any] = {"kind": kind, "timesteps": 100, "beta_start": 1e-4, "beta_end": 0.02}
        if kind == "betas":
            document = {"kind": kind, "timesteps": 5, "betas": [0.1, 0.2, 0.3, 0.4, 0.5]}
        found = changed(document, random)
        schedule = edgepure.ScheduleSpec(**{str(k): v for k, v in found.items()}) if isinstance(found, dict) else None
        if schedule is not None:
            schedule.build().jump(len(schedule.build()) - 1, 0)
