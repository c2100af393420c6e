"""What a verification found: four levels, a verdict, and a story in one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..report.numerals import percent
from .checks import OutputCheck
from .findings import LayerFinding
from .images import Differing
from .levels import Level

#: What the reference is called if it is what PyTorch recorded at export.
RECORDED = "the recorded vectors"


@dataclass(frozen=True)
class Verification:
    """What a verification found. ``bool`` is the verdict, ``str`` the one-line story.

    Attributes:
        bundle, provider, precision: what was verified.
        reference: what it was compared with.
        files, bytes: how many files were hashed, and how large they are.
        levels: graphs, rows, images, decisions.
        unrecorded: presets that were not compared; their graphs are checked all the same.
        findings: where failing graphs begin to differ.
        notes: what a reader should know, one sentence each.
        differing: images for a report.
    """

    bundle: str
    provider: str
    files: int
    bytes: int
    levels: tuple[Level, ...]
    unrecorded: tuple[str, ...] = ()
    precision: str = "fp32"
    reference: str = RECORDED
    findings: tuple[LayerFinding, ...] = ()
    notes: tuple[str, ...] = ()
    differing: tuple[Differing, ...] = field(default=(), repr=False)

    @property
    def checks(self) -> tuple[OutputCheck, ...]:
        """All levels as lines of a table."""
        return tuple(check for level in self.levels for check in level.checks)

    def __bool__(self) -> bool:
        failed = any(level.status == "failed" for level in self.levels)
        return not failed and bool(self.levels) and bool(self.levels[0])

    def __str__(self) -> str:
        variant = "" if self.precision == "fp32" else f" ({self.precision})"
        against = "" if self.reference == RECORDED else f" against {self.reference}"
        start = f"{self.bundle}{variant} on {self.provider}{against}: the hashes of {self.files} files match"
        failed = [check for check in self.checks if not check]
        if failed:
            return f"{start}, but {len(failed)} of {len(self.checks)} comparisons fail; the first is {failed[0]}"
        absent = [f"{level.title} {level.status}" for level in self.levels if not level.parts]
        more = f" ({', '.join(absent)})" if absent else ""
        used = max((check.used for check in self.checks), default=0.0)
        worst = f"the worst uses {percent(used)} % of its tolerance"
        return f"{start}, all {len(self.checks)} comparisons pass{more}; {worst}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "ok": bool(self),
            "bundle": self.bundle,
            "provider": self.provider,
            "precision": self.precision,
            "reference": self.reference,
            "files": self.files,
            "bytes": self.bytes,
            "levels": [level.to_json() for level in self.levels],
            "checks": [check.to_json() for check in self.checks],
            "unrecorded": list(self.unrecorded),
            "findings": [finding.to_json() for finding in self.findings],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Verifications:
    """Several engines or precisions of one bundle. ``bool``: all pass."""

    each: tuple[Verification, ...]

    def __bool__(self) -> bool:
        return bool(self.each) and all(self.each)

    def __str__(self) -> str:
        return "\n".join(str(found) for found in self.each)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"ok": bool(self), "verifications": [found.to_json() for found in self.each]}
