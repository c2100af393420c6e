"""What a demonstration found: the content of ``report.json``; `edgepure.demo.page` writes it and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..purify.scores import Score
from ..report.pictures import Picture

#: The columns of the accuracy table, in order: key, heading.
COLUMNS = (("clean", "Clean"), ("attacked", "Attacked"), ("whitebox", "White-box"))


@dataclass(frozen=True)
class ColumnProtocol:
    """How a column of accuracies was measured: everything that has to be known to repeat or doubt it.

    Attributes:
        images: which images, in words, with their number.
        decision: the rule that turns purifications into one answer.
        seeds: of what was drawn: ``noise`` of the purifications, ``attack``, ``subset`` of the images.
        attack, norm, eps, steps, step_size, random_start, eot: the attack; None where there is none.
        gradient: which gradient the attack follows, and where it is cut.
        target: what was attacked.
        note: anything else, one sentence.
    """

    images: str
    decision: str
    seeds: Mapping[str, int] = field(default_factory=dict)
    attack: str | None = None
    norm: str | None = None
    eps: float | None = None
    steps: int | None = None
    step_size: float | None = None
    random_start: bool | None = None
    eot: int | None = None
    gradient: str | None = None
    target: str | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """The protocol in one line, for a footnote."""
        parts = []
        if self.attack:
            size = f"eps {self.eps:g}, {self.steps} steps of {self.step_size:.3g}"
            parts.append(f"{self.attack}, {self.norm}, {size}{', random start' if self.random_start else ''}")
        if self.eot:
            parts.append(f"EOT {self.eot}")
        if self.target:
            parts.append(f"on {self.target}")
        if self.gradient:
            parts.append(f"gradient: {self.gradient}")
        parts += [self.images, self.decision]
        if self.seeds:
            parts.append("seeds: " + ", ".join(f"{what} {seed}" for what, seed in self.seeds.items()))
        return "; ".join(parts) + "." + (f" {self.note}" if self.note else "")


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
    protocols: Mapping[str, ColumnProtocol]
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
