"""The report of a demonstration: its data, ``report.json``, and ``report.html`` (see `edgepure.demo.page`)."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgepureError
from ..files.atomic import write_text
from ..machine.packages import ENGINES, package_version
from ..machine.processor import cpu_name, usable_cores
from .scores import Protocol, Score

#: The columns of the accuracy table, in order: key, heading.
COLUMNS = (("clean", "Clean"), ("attacked", "Attacked"), ("whitebox", "White-box"))


@dataclass(frozen=True)
class Picture:
    """One image of the report.

    Attributes:
        pixels: ``[C, H, W]`` float32 in [0, 1], C = 1 or 3.
        title: what it is ("clean", "purified").
        verdict: what the classifier says of it; empty for none.
        right: whether that is the truth; None for pictures without a verdict.
        mask: ``[H, W]`` bool, drawn over the pixels.
    """

    pixels: NDArray[np.float32]
    title: str
    verdict: str = ""
    right: bool | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Gallery:
    """A section of strips; each strip is one image and what happened to it, with a caption.

    ``wide``: a strip takes the whole width of the page.
    """

    title: str
    note: str
    strips: tuple[tuple[str, tuple[Picture, ...]], ...]
    wide: bool = False


@dataclass(frozen=True)
class MethodScores:
    """One line of the accuracy table.

    Attributes:
        name: the preset.
        description: its own description.
        unet_calls: mean UNet calls of one purification (a probe, where there is one, counted in each).
        unet_calls_decision: mean UNet calls of one decision: probe once, and all votes.
        ms_per_image: milliseconds of one decision on this machine; None if not measured.
        clean, attacked, whitebox: the scores; None for a column that was not measured.
    """

    name: str
    description: str
    unet_calls: float
    unet_calls_decision: float
    ms_per_image: float | None
    clean: Score
    attacked: Score | None
    whitebox: Score | None = None


@dataclass(frozen=True)
class DemoReport:
    """Everything that the two files show.

    Attributes:
        title, summary: heading and the paragraph below it.
        default: name of the method that the headline numbers are of.
        plain: scores of the classifier without purification, by column key.
        methods: the other lines of the table.
        protocols: by column key; ``plain_whitebox`` is the white-box attack on the plain classifier.
        galleries: the pictures; the first stands above the accuracy table, the others below.
        plan: rows (dicts with "stage", "t", "to") of the default method.
        timings: seconds by stage of the demonstration.
        facts: what else a reader should know: versions, device, parity, self-test.
        notes: sentences below the table.
    """

    title: str
    summary: str
    default: str
    plain: Mapping[str, Score | None]
    methods: Sequence[MethodScores]
    protocols: Mapping[str, Protocol]
    galleries: Sequence[Gallery] = field(default=(), repr=False)
    plan: Sequence[Mapping[str, Any]] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def method(self, name: str) -> MethodScores:
        """The line of one method."""
        return next(m for m in self.methods if m.name == name)

    def to_dict(self) -> dict[str, Any]:
        """The content of report.json: fractions 0..1, null for what was not measured."""
        return {
            "title": self.title,
            "default": self.default,
            "plain": _scores(self.plain),
            "methods": [
                {
                    "name": m.name,
                    "description": m.description,
                    "unet_calls": _rounded(m.unet_calls),
                    "unet_calls_decision": _rounded(m.unet_calls_decision),
                    "ms_per_image": None if m.ms_per_image is None else round(m.ms_per_image, 3),
                    **_scores({"clean": m.clean, "attacked": m.attacked, "whitebox": m.whitebox}),
                }
                for m in self.methods
            ],
            "protocol": {key: protocol.to_dict() for key, protocol in self.protocols.items()},
            "timings_seconds": {key: round(value, 2) for key, value in self.timings.items()},
            "facts": dict(self.facts),
            "notes": list(self.notes),
        }

    def write(self, out: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write report.html and report.json into the folder ``out``; each appears whole or not at all.

        Returns the two paths.

        Raises:
            EdgepureError: the folder cannot be written.
        """
        from .page import render

        folder = Path(out)
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        page = render(self)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EdgepureError(
                f"the report cannot be written to {folder}: {error.strerror or error}; choose another folder with --out"
            ) from None
        write_text(folder / "report.html", page)
        write_text(folder / "report.json", text)
        return folder / "report.html", folder / "report.json"


def environment(*providers: str) -> dict[str, str]:
    """Date, machine and versions: what a timing means nothing without.

    ``providers``: those that computed, whose engines are named; none: ``cpu``.
    """
    packages = [ENGINES[provider][1] for provider in providers or ("cpu",)]
    return {
        "date": date.today().isoformat(),
        "edgepure": package_version("edgepure") or "-",
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{names[0]: package_version(*names) or "-" for names in packages},
        "device": cpu_name(),
        "cores": str(usable_cores()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _scores(scores: Mapping[str, Score | None]) -> dict[str, Any]:
    """Fractions by column, and beside them the intervals, the numbers of images and the other decision rules."""
    found: dict[str, Any] = {}
    for key, _ in COLUMNS:
        score = scores.get(key)
        found[key] = None if score is None else round(score.fraction, 6)
    measured = {key: score for key, _ in COLUMNS if (score := scores.get(key)) is not None}
    found["images"] = {key: score.images for key, score in measured.items()}
    found["interval95"] = {key: [round(v, 4) for v in score.interval] for key, score in measured.items()}
    for rule in ("single", "worst"):
        counts = {k: getattr(s, rule) / s.images for k, s in measured.items() if getattr(s, rule) is not None}
        if counts:
            found["single_purification" if rule == "single" else "all_purifications_right"] = {
                k: round(v, 6) for k, v in counts.items()
            }
    return found


def _rounded(value: float) -> float | int:
    return int(value) if float(value).is_integer() else round(value, 2)
