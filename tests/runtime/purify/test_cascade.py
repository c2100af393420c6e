"""Cascades: what is certified holds, the hand-over included; and votes end with the right noise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from in_process import invoke

import edgepure
from edgepure import Preset, Purifier
from edgepure.intervals import lower_bound
from edgepure.methods.presets import SequentialSpec
from edgepure.purify import cascade
from edgepure.purify.cascade import CascadeBallot, CascadeCertifier, Level, radius_of
from edgepure.purify.certificate import CertifySettings
from edgepure.rows.noise import SeededNoise

NORMAL = NormalDist()
CASCADE: dict[str, Any] = {
    "method": {"method": "smooth", "sigma": 0.8},
    "cascade": {"then": [{"method": "smooth", "sigma": 0.3}], "share": 0.6},
    "votes": {"sequential": {"alpha": 0.05, "max": 60}},
}


@pytest.fixture(scope="module")
def purifier(tiny_bundle: Path) -> Iterator[Purifier]:
    with edgepure.load(tiny_bundle, threads=1, slots=16) as opened:
        yield opened


class Line:
    """A classifier of the real line for each noise: intervals with classes. Shares are known, and so is the cascade."""

    def __init__(self, rng: np.random.Generator, sigmas: tuple[float, ...], share: float) -> None:
        self.sigmas, self.share, self.classes = sigmas, share, 3
        self.cuts = [np.sort(rng.uniform(-2.0, 2.0, rng.integers(1, 6))) for _ in sigmas]
        self.labels = [rng.integers(0, 3, len(cuts) + 1) for cuts in self.cuts]

    def shares(self, level: int, x: float) -> np.ndarray:
        below = [0.0, *(NORMAL.cdf((cut - x) / self.sigmas[level]) for cut in self.cuts[level]), 1.0]
        return np.bincount(self.labels[level], np.diff(below), self.classes)

    def answer(self, x: float) -> int:
        for level in range(len(self.sigmas)):
            found = self.shares(level, x)
            if level == len(self.sigmas) - 1 or found.max() >= self.share:
                return int(found.argmax())
        raise AssertionError

    def levels(self, x: float, label: int, slack: float) -> list[Level]:
        found = []
        for level, sigma in enumerate(self.sigmas):
            shares = self.shares(level, x)
            others = max(np.delete(shares, label))
            found.append(Level(sigma, max(shares[label] - slack, 0.0), min(others + slack, 1.0)))
        return found


@pytest.mark.parametrize("slack", [1e-9, 0.02])  # shares are known to some 1e-15, and 1 proves anything
def test_within_the_radius_the_cascade_answers_alike(slack: float) -> None:
    """3000 random classifiers and points, with the shares known or bounded: every point within the radius that a fine
    grid finds has the same answer, whichever noise gives it; and the radius is no trifle."""
    rng, certified, handed_on, tight = np.random.default_rng(0), 0, 0, 0
    for _ in range(3000):
        sigmas = tuple(np.sort(rng.uniform(0.1, 1.2, rng.integers(2, 4)))[::-1])
        line, x = Line(rng, sigmas, rng.choice([0.5, 0.6, 0.75, 0.9])), rng.uniform(-1.5, 1.5)
        label = line.answer(x)
        levels = line.levels(x, label, slack)
        # stopping at any noise is allowed, too
        some = rng.integers(1, len(levels) + 1)
        radius = min(radius_of(levels[:some], line.share, whole=some == len(levels)), 20.0)  # one class: infinite
        if radius <= 0.0:
            continue
        certified += 1
        handed_on += line.shares(0, x).max() < line.share
        inside = x + np.linspace(-1.0, 1.0, 41) * radius * (1.0 - 1e-9)
        assert {line.answer(float(at)) for at in inside} == {label}
        beyond = x + np.array([-1.02, 1.02]) * radius
        tight += slack < 0.01 and {line.answer(float(at)) for at in beyond} != {label}
    assert certified > 800 and handed_on > 100
    assert slack > 0.01 or tight > 50  # where nothing is bounded loosely, some radii are exact


def test_hand_over_is_part_of_the_radius() -> None:
    """The weak noise alone would prove more than the cascade: the strong one takes the image over before."""
    weak = Level(0.25, 0.999, 0.001)
    alone = radius_of([weak], 0.6, whole=True)
    near = radius_of([Level(1.0, 0.4, 0.59), weak], 0.6, whole=True)
    assert alone == pytest.approx(0.25 * NORMAL.inv_cdf(0.999))
    assert near == pytest.approx(NORMAL.inv_cdf(0.6) - NORMAL.inv_cdf(0.59)) and near < 0.1 * alone
    assert radius_of([Level(1.0, 0.3, 0.65), weak], 0.6, whole=True) <= 0.0  # another class may have its share there
    sure = Level(1.0, 0.995, 0.005)
    assert radius_of([sure], 0.6, whole=False) > alone  # strong noise that is sure proves more than weak noise can
    assert radius_of([Level(1.0, 0.65, 0.35), weak], 0.6, whole=True) > radius_of(
        [Level(1.0, 0.65, 0.35)], 0.6, whole=False
    )


def test_certificates_on_an_engine(purifier: Purifier) -> None:
    data = np.concatenate([np.full((1, 1, 16, 16), 0.0), np.full((1, 1, 16, 16), 115 / 255)]).astype(np.float32)
    data = (np.rint(data * 255.0) / 255.0).astype(np.float32)
    dark, near = purifier.certify(data, CASCADE, n=400, n0=20, alpha=0.01, noise=1)
    assert dark.class_name == "dark" and dark.exact and dark.sigma == pytest.approx(0.8)
    (strong,) = purifier.certify(data[:1], {"method": CASCADE["method"]}, n=400, n0=20, alpha=0.01, noise=1)
    assert 0.0 < dark.radius < strong.radius and dark.answers >= 420
    assert near.answers == 840 or near.radius > 0.0
    again = purifier.certify(data, CASCADE, n=400, n0=20, alpha=0.01, noise=1)
    assert again == [dark, near]
    short = purifier.certify(data[:1], CASCADE, n=400, n0=20, alpha=0.01, noise=1, radius=0.05)[0]
    assert short.radius >= 0.05 and short.answers <= dark.answers


class Known(CascadeCertifier):
    """A certifier whose answers are drawn from known shares."""

    def __init__(self, shares: list[list[float]], settings: CertifySettings) -> None:
        self._share, self._settings, self._classes = 0.6, settings, tuple("abc")
        self._chosen_by = settings.n0 or 100
        self._stages = [Drawn(s, 1.0 / (1 + i)) for i, s in enumerate(shares)]  # type: ignore[misc]


class Drawn:
    def __init__(self, shares: list[float], sigma: float) -> None:
        self.shares, self.sigma, self.rng = shares, sigma, np.random.default_rng(7)

    def answers(self, image: Any, source: Any, votes: range, ids: Any) -> np.ndarray:
        return self.rng.choice(3, (1, len(votes)), p=self.shares)

    def exact(self, image: Any, source: Any, number: int) -> bool:
        return True


@pytest.mark.parametrize(
    "shares",
    [
        [[0.62, 0.3, 0.08], [0.2, 0.7, 0.1]],  # strong noise is just sure of a, weak noise says b
        [[0.58, 0.4, 0.02], [0.1, 0.85, 0.05]],  # it is just not sure
        [[0.45, 0.45, 0.1], [0.45, 0.5, 0.05], [0.52, 0.48, 0.0]],
    ],
)
def test_counted_radii_exceed_the_true_ones_more_rarely_than_alpha(
    shares: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "lower_bound", lru_cache(None)(lower_bound))  # the counts come again and again
    alpha, trials, wrong = 0.1, 1500, 0
    certifier = Known(shares, CertifySettings(n=300, n0=10, alpha=alpha))
    sigmas = [stage.sigma for stage in certifier._stages]
    image = np.zeros((1, 1, 2, 2), np.float32)
    for _ in range(trials):
        found = certifier._certify(image, SeededNoise(0), "x", 0)
        if found.label is None:
            continue
        true = [Level(s, p[found.label], max(np.delete(p, found.label))) for s, p in zip(sigmas, shares, strict=True)]
        wrong += found.radius > radius_of(true, 0.6, whole=True) + 1e-12
    assert wrong / trials <= alpha + 3.0 * math.sqrt(alpha / trials)


def test_votes_end_at_the_noise_that_answers(purifier: Purifier) -> None:
    data = np.concatenate([np.full((1, 1, 16, 16), value, np.float32) for value in (0.0, 1.0, 0.47)])
    results = purifier.run(data, CASCADE, noise=2)
    assert [r.class_name for r in results[:2]] == ["dark", "bright"]
    assert all(r.levels == {"sigma": 0.8} and not r.abstained for r in results[:2])
    assert results[2].levels["sigma"] in (0.8, 0.3) and results[2].unet_calls >= len(results[2].vote_labels)
    alone = [purifier.run(data[i : i + 1], CASCADE, noise=2, ids=[i])[0] for i in range(3)]
    assert [(r.label, r.vote_labels, r.unet_calls) for r in alone] == [
        (r.label, r.vote_labels, r.unet_calls) for r in results
    ]
    with edgepure.Service(purifier, CASCADE) as service:
        assert service.submit(data[0], noise=2).result().class_name == "dark"


@pytest.mark.parametrize(
    ("shares", "right", "most"),
    [
        ([(0.75, 0.25), (0.1, 0.9)], (0, 0), 300),  # strong noise has it
        ([(0.6, 0.4), (0.1, 0.9)], (0, 0), 150),  # it just has it: mostly nothing is settled
        ([(0.5, 0.5), (0.1, 0.9)], (1, 1), 800),  # it has not, and hands on
        ([(0.4, 0.3, 0.3), (0.2, 0.7, 0.1)], (1, 1), 300),
    ],
)
def test_a_ballot_errs_more_rarely_than_alpha(
    shares: list[tuple[float, ...]], right: tuple[int, int], most: int
) -> None:
    """And never asks for a vote of a noise that does not vote any more."""
    rng, alpha, trials, wrong, settled = np.random.default_rng(4), 0.1, 200, 0, 0
    for _ in range(trials):
        ballot = CascadeBallot(SequentialSpec(alpha=alpha, max=most), 0.6, 2)
        while ballot.open:
            level, asked = ballot.level, ballot.fewest()
            for left in range(asked, 0, -1):
                assert ballot.open and ballot.level == level, f"{left} votes are under way"
                ballot.cast(int(rng.choice(len(shares[level]), p=shares[level])))
        if ballot.settled is not None:
            settled += 1
            wrong += (ballot.settled, ballot.level) != right
    assert wrong / trials <= alpha + 3.0 * math.sqrt(alpha / trials)
    assert settled > trials // 2 or shares[0][0] == 0.6


def test_what_is_no_cascade(purifier: Purifier) -> None:
    for change, code in (
        ({"votes": {"count": 5}}, "E-cascade-votes"),
        ({"cascade": {"then": [{"method": "smooth", "sigma": 0.9}]}}, "E-cascade-order"),
        ({"cascade": {"then": [{"method": "split", "sigma": 0.2}]}, "mask": {"area": 0.5}}, "E-cascade-parts"),
    ):
        with raises_code(code):
            Preset.parse({**CASCADE, **change})
    with raises_code("E-certificate-count"):
        purifier.certify(np.zeros((1, 1, 16, 16), np.float32), CASCADE, n=1 << 23, n0=20)
    planner = purifier.planner
    preset = Preset.parse(CASCADE)
    assert planner.certified_sigma(preset) == pytest.approx(0.3) and planner.answer_calls(preset) == 2
    assert planner.unet_calls(preset) == 120 and [s.method.top_level for s in preset.stages] == [0.8, 0.3]
    assert Preset.parse(preset.model_dump(mode="json")) == preset


def test_the_command_says_what_a_cascade_is(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(CASCADE))
    done = invoke("plan", "--preset", tmp_path / "mine.json")
    assert done.exit_code == 0 and "at most 120 = 2 rows x 60 votes" in done.stdout
    assert "60 % of the answers, then smooth 0.3" in done.stdout and "sigma 0.3 on" in done.stdout
