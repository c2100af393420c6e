"""The papers' claims, and ours, as paired tests on the raw answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .statistics import Paired, holm, paired
from .store import Answers

#: Answers by (system, attack).
Found = Mapping[tuple[str, str], Answers]


@dataclass(frozen=True)
class Claim:
    """Is the first system right more often than the second?"""

    says: str
    first: str
    second: str


CLAIMS = (
    Claim("heterogeneous noise beats uniform noise at equal calls, no resampling", "heterogeneous-none-6", "uniform-6"),
    Claim("heterogeneous with single-step resampling beats uniform at equal calls", "heterogeneous-6", "uniform-6"),
    Claim("single-step resampling beats none at equal calls", "heterogeneous-6", "heterogeneous-none-6"),
    Claim("single-step resampling beats multi-step at equal calls", "heterogeneous-6", "heterogeneous-multi-6"),
    Claim(
        "single-step resampling without a call more (authors' code) beats none",
        "heterogeneous-official-6",
        "heterogeneous-official-none-6",
    ),
    Claim("SSNI (sigmoid) beats a fixed level, heterogeneous", "heterogeneous-6-ssni-sigmoid", "heterogeneous-6"),
    Claim("SSNI (sigmoid) beats a fixed level, uniform", "uniform-6-ssni-sigmoid", "uniform-6"),
    Claim("six calls are as good as the paper's hundred, heterogeneous", "heterogeneous-6", "papers-heterogeneous-100"),
    Claim("six calls are as good as a hundred, uniform DDPM", "uniform-6", "papers-ddpm-100"),
    Claim("six calls beat one, uniform", "uniform-6", "one-call"),
    Claim("six calls beat three, uniform", "uniform-6", "uniform-3"),
)


@dataclass(frozen=True)
class Verdict:
    """A claim under one attack, by one decision rule; `corrected` is its p-value among all verdicts of the report."""

    claim: Claim
    attack: str
    rule: str
    result: Paired
    corrected: float

    @property
    def words(self) -> str:
        """What the numbers allow to say."""
        if self.corrected < 0.05:
            return "holds" if self.result.difference > 0 else "the reverse holds"
        return "no difference was shown"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "claim": self.claim.says,
            "first": self.claim.first,
            "second": self.claim.second,
            "attack": self.attack,
            "rule": self.rule,
            **self.result.to_dict(),
            "p_holm": round(self.corrected, 6),
            "verdict": self.words,
        }


def against(filters: list[str]) -> list[Claim]:
    """Our default against every trivial baseline."""
    return [Claim(f"heterogeneous purification beats {name}", "heterogeneous-6", name) for name in filters]


def between(first: str, second: str, groups: Mapping[str, Found]) -> tuple[list[Claim], Found]:
    """One classifier behind every system against another one behind the same system: the claims, and the answers of
    both under the names that these use."""
    both = [key for key in groups[first] if key in groups[second]]
    named = {
        (f"{system}, {name}", attack): groups[name][system, attack]
        for system, attack in both
        for name in (first, second)
    }
    known = dict.fromkeys(system for system, _ in both)
    return [Claim(f"{first} beats {second}", f"{system}, {first}", f"{system}, {second}") for system in known], named


def common(first: Answers, second: Answers) -> tuple[Answers, Answers] | None:
    """The images that both have met, which are the first ones of the same order."""
    count = min(len(first), len(second))
    if not np.array_equal(first.index[:count], second.index[:count]):
        return None
    return first.part(slice(count)), second.part(slice(count))


def test(claims: list[Claim], found: Found) -> list[Verdict]:
    """Every claim under every attack that both systems have met, by the majority of the votes that both have."""
    made: list[tuple[Claim, str, str, Paired]] = []
    for claim in claims:
        attacks = [attack for system, attack in found if system == claim.first and (claim.second, attack) in found]
        for attack in attacks:
            both = common(found[claim.first, attack], found[claim.second, attack])
            if both is None:
                continue
            rule = _rule(both)
            result = paired(*(a.right(rule) for a in both))
            made.append((claim, attack, rule, result))
    corrected = holm([result.p for *_, result in made])
    return [Verdict(*one, p) for one, p in zip(made, corrected, strict=True)]


def _rule(both: tuple[Answers, Answers]) -> str:
    """The majority of as many votes as both have; what gives always the same answer has as many as it likes."""
    counts = [len(a.votes) for a in both if a.calls > 0 or len(a.votes) > 1]
    votes = min(counts, default=1)
    return "single" if votes == 1 else f"majority-{votes}"
