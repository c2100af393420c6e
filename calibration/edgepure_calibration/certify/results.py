"""What a certification found, and the forms in which the field writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from edgepure.intervals import clopper_pearson
from edgepure.purify.certificate import Certificate, CertifySettings

#: Radii of the table, as in Cohen et al. 2019.
RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Entry:
    """One image: its position in the data set, its true class, its certificate, and the `image_key` of its pixels."""

    index: int
    truth: int
    certificate: Certificate
    sha256: str = ""

    @property
    def correct(self) -> bool:
        return self.certificate.label == self.truth


@dataclass(frozen=True)
class Curve:
    """The certificates of one preset.

    ``settings``: what of the preset they are about, as plain data. ``carried_to``: the precision that they were carried
    to, whose graphs have the key ``graphs``; None: they were counted themselves. ``until``: the radius at which the
    counting ended; None: there was none.
    """

    name: str
    sigma: float
    unet_calls: int
    entries: tuple[Entry, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    carried_to: str | None = None
    graphs: str = ""
    until: float | None = None

    def certified(self, radius: float) -> int:
        """How many images are correct *and* certified to at least this radius; abstentions count as wrong."""
        return sum(e.correct and e.certificate.radius >= radius for e in self.entries)

    def share(self, radius: float) -> float:
        """The certified accuracy at a radius."""
        return self.certified(radius) / len(self.entries)

    @property
    def abstained(self) -> int:
        return sum(e.certificate.abstained for e in self.entries)

    @property
    def samples(self) -> float:
        """Answers that an image took, on average."""
        return sum(e.certificate.answers for e in self.entries) / len(self.entries)

    def tsv(self) -> str:
        """The table that the field's plotting code reads: idx, label, predict (-1: abstained), radius, correct, time.

        Radii are rounded down, so that no digit claims more than was proven.
        """
        lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
        for entry in self.entries:
            found = entry.certificate
            predict = -1 if found.label is None else found.label
            radius = math.floor(found.radius * 1e5) / 1e5
            time = timedelta(seconds=round(found.seconds, 6))
            lines.append(f"{entry.index}\t{entry.truth}\t{predict}\t{radius:.5f}\t{int(entry.correct)}\t{time}")
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        count = len(self.entries)
        table = [
            {
                "radius": r,
                "certified": self.certified(r),
                "share": self.share(r),
                "interval": list(clopper_pearson(self.certified(r), count)),
            }
            for r in radii_of(self.until)
        ]
        images = [
            {"index": e.index, "truth": e.truth, "sha256": e.sha256, **e.certificate.to_dict()} for e in self.entries
        ]
        return {
            "preset": self.name,
            "carried_to": self.carried_to,
            "settings": dict(self.settings),
            "sigma": self.sigma,
            "unet_calls": self.unet_calls,
            "abstained": self.abstained,
            "samples": self.samples,
            "exact": all(e.certificate.exact for e in self.entries),
            "table": table,
            "images": images,
        }


@dataclass(frozen=True)
class Certified:
    """A data set certified with one or more presets.

    ``facts``: bundle, engine, precision, data, date.
    """

    settings: CertifySettings
    curves: tuple[Curve, ...]
    image_shape: tuple[int, int, int]
    bundle_sha256: str
    facts: Mapping[str, str]

    def warnings(self) -> tuple[str, ...]:
        """What the certificates do not cover: it stands first wherever they are shown."""
        return not_covered(self.tables(), math.prod(self.image_shape))

    def tables(self) -> list[dict[str, Any]]:
        """Of each preset plain data that say all about it: what was found, how it was counted, and with what."""
        settings = self.settings
        rule = {"n": settings.n, "n0": settings.chosen_by, "alpha": settings.alpha, "radius": settings.radius}
        found = []
        for curve in self.curves:
            own = curve.carried_to is None
            facts = {**self.facts, **({} if curve.carried_to is None else {"precision": curve.carried_to})}
            more = {
                "wrong_at_most": settings.alpha * (1.0 if own else 2.0),
                "bundle_sha256": self.bundle_sha256 if own else curve.graphs,
            }
            found.append({**curve.to_dict(), **rule, **more, "facts": facts})
        return found

    @property
    def radii(self) -> tuple[float, ...]:
        """Of the table."""
        return radii_of(self.settings.radius)

    def best(self) -> list[tuple[float, Curve]]:
        """The preset with the highest certified accuracy at each radius."""
        return [(r, max(self.curves, key=lambda curve: curve.certified(r))) for r in self.radii]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        settings = self.settings
        return {
            "format": 1,
            "not_covered": list(self.warnings()),
            "facts": dict(self.facts),
            "bundle_sha256": self.bundle_sha256,
            "n": settings.n,
            "n0": settings.chosen_by,
            "alpha": settings.alpha,
            "radius": settings.radius,
            "presets": self.tables(),
        }


def radii_of(until: float | None) -> tuple[float, ...]:
    """Radii of a table. Where the counting ended once ``until`` was settled, nobody knows what more answers would have
    proven at others."""
    return RADII if until is None else (until,)


def not_covered(tables: Sequence[Mapping[str, Any]], elements: int) -> tuple[str, ...]:
    """What the certificates of these tables (`Certified.tables`) do not cover, for images of so many values."""
    alpha = max((table["alpha"] for table in tables if table["carried_to"] is None), default=0.0)
    carried = max((table["wrong_at_most"] for table in tables if table["carried_to"] is not None), default=0.0)
    wrong = f"{alpha:g}" + (f" ({carried:g} where it was carried)" if carried else "") if alpha else f"{carried:g}"
    found = [
        "A certificate says: every image whose L2 distance on [0, 1] is below the radius gets the same smoothed "
        f"answer. It says nothing beyond: a change of 8/255 in every one of the {elements} values has the L2 length "
        f"{8 / 255 * math.sqrt(elements):.2f}, of 4/255 {4 / 255 * math.sqrt(elements):.2f}, "
        "and such an Linf ball is covered only where the radius reaches that length.",
        f"Each certificate is wrong with a probability of at most {wrong}. It is about the answer that most "
        "purifications give, not about a single one: `classify` with few votes may answer otherwise.",
        "It does not cover rotations, blur, patches, other images of the same thing, or changes before the image "
        "is read; and it is about these graphs on this engine in this precision.",
    ]
    if not all(table["exact"] for table in tables):
        found.append(
            "Of some presets the images are not of 8 bits, or they see their input more than once: the noise was added "
            "in 32-bit floats, and the proof treats them as real numbers."
        )
    return tuple(found)
