"""Certificates of a bundle: the counting, the rule, and who gets none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import images

import edgepure
from edgepure import Certificate, Purifier
from edgepure.purify.certificate import CertifySettings
from edgepure.purify.certify import Certifier

SMOOTH = {"method": {"method": "smooth", "sigma": 0.5}}


@pytest.fixture(scope="module")
def purifier(tiny_bundle: Path) -> Iterator[Purifier]:
    with edgepure.load(tiny_bundle, threads=1, slots=8) as opened:
        yield opened


def eight_bits(count: int = 3) -> np.ndarray:
    """Images around the boundary of the tiny classifier, so that votes disagree."""
    levels = np.random.default_rng(0).integers(90, 160, (count, 1, 16, 16))
    return (levels / 255.0).astype(np.float32)


def upper_tail(k: int, n: int, p: float) -> float:
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def radius_by_the_public_rule(count: int, n: int, alpha: float, sigma: float) -> float:
    """Cohen et al. 2019, section 3.2.2, once more: bisection on the binomial tail and on the normal CDF."""
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(count, n, middle) < alpha else (low, middle)
    if low < 0.5:
        return 0.0
    a, b = 0.0, 10.0
    for _ in range(100):
        middle = (a + b) / 2
        a, b = (middle, b) if 0.5 * (1.0 + math.erf(middle / math.sqrt(2.0))) < low else (a, middle)
    return sigma * a


def test_float_images_are_counted_as_votes_are(purifier: Purifier) -> None:
    """The same noise as `classify` has: the first n0 votes choose, the others are counted."""
    data = images(2, seed=4) * np.float32(0.3) + np.float32(0.3)
    found = purifier.certify(data, SMOOTH, n=60, n0=10, alpha=0.01, noise=5)
    votes = purifier.run(data, {**SMOOTH, "votes": {"count": 70, "rule": "majority"}}, noise=5)
    for certificate, result in zip(found, votes, strict=True):
        label = int(np.bincount(result.vote_labels[:10]).argmax())
        count = result.vote_labels[10:].count(label)
        assert (certificate.count, certificate.samples, certificate.exact) == (count, 60, False)
        expected = radius_by_the_public_rule(count, 60, 0.01, 0.5)
        assert certificate.radius == pytest.approx(expected, rel=1e-6)
        assert certificate.label == (label if expected > 0.0 else None)


def test_eight_bit_images_have_exact_ones_that_do_not_depend_on_the_batch(
    purifier: Purifier, tiny_bundle: Path
) -> None:
    data = eight_bits()
    together = purifier.certify(data, SMOOTH, n=50, n0=10, noise=1)
    assert all(c.exact and c.samples == 50 for c in together)
    with edgepure.load(tiny_bundle, threads=1, slots=3) as other:
        assert other.certify(data, SMOOTH, n=50, n0=10, noise=1) == together
    assert purifier.certify(data[:1], SMOOTH, n=50, n0=10, noise=2)[0].count != together[0].count


def test_a_radius_ends_the_counting(purifier: Purifier) -> None:
    data = np.concatenate([eight_bits(1), np.zeros((1, 1, 16, 16), np.float32)])
    unclear, dark = purifier.certify(data, SMOOTH, n=400, n0=10, radius=0.3, noise=1)
    assert dark.radius >= 0.3 and dark.samples < 100
    assert unclear.samples <= 400


def test_few_answers_are_for_nothing_where_a_radius_ends_the_counting(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other images have the slots while an image waits for its answers, however many slots there are."""
    made, whole = [], Certifier._job
    monkeypatch.setattr(Certifier, "_job", lambda self, *args: made.append(args[4]) or whole(self, *args))
    dark = np.zeros((6, 1, 16, 16), np.float32)
    with edgepure.load(tiny_bundle, threads=1, slots=96) as many:
        found = many.certify(dark, SMOOTH, n=400, radius=0.4, noise=1)
        assert all(c.radius >= 0.4 for c in found)
        assert len(made) <= sum(c.answers for c in found) + 16 * len(found)
        rows = [made.count(index) for index in range(len(found))]
    with edgepure.load(tiny_bundle, threads=1, slots=1) as one:
        assert one.certify(dark, SMOOTH, n=400, radius=0.4, noise=1) == found
    assert max(rows) < 96


def test_what_no_answers_could_prove_is_said_at_once(purifier: Purifier) -> None:
    """And what the last of them could prove is counted."""
    cascade = {
        **SMOOTH,
        "cascade": {"then": [{"method": "smooth", "sigma": 0.2}]},
        "votes": {"sequential": {"alpha": 0.05}},
    }
    refused: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (SMOOTH, {"n": 1}, "E-certificate-count"),
        (SMOOTH, {"n": 9}, "E-certificate-count"),  # 0.5^9 > 0.001 > 0.5^10
        (SMOOTH, {"n": 100, "alpha": 1e-300}, "E-certificate-count"),
        (SMOOTH, {"n": 20, "radius": 0.5}, "E-certificate-radius"),
        (SMOOTH, {"n": 8000, "radius": 2.0}, "E-certificate-radius"),
        (cascade, {"n": 10}, "E-certificate-count"),
        (cascade, {"n": 100, "radius": 0.9}, "E-certificate-radius"),
    ]
    for preset, settings, code in refused:
        with raises_code(code):
            purifier.certify(eight_bits(1), preset, on_certificate=pytest.fail, **settings)
    dark = np.zeros((1, 1, 16, 16), np.float32)
    for n, n0, radius in ((10, 1, None), (CertifySettings(n=40, radius=0.3).n, None, 0.3)):
        (found,) = purifier.certify(dark, SMOOTH, n=n, n0=n0, radius=radius, noise=1)
        assert 0.0 < found.radius <= CertifySettings(n, n0, radius=radius).reach(0.5)


def test_who_has_none(purifier: Purifier) -> None:
    for preset, code in (
        ("heterogeneous", "E-certificate-mask"),
        ("adaptive", "E-certificate-ssni"),
    ):
        with raises_code(code):
            purifier.certify(eight_bits(1), preset, n=5, n0=2)
    for settings, code in (
        ({"n": 0}, "E-certificate-count"),
        ({"n0": 0}, "E-certificate-count"),
        ({"alpha": 0.0}, "E-certificate-alpha"),
        ({"alpha": 0.6}, "E-certificate-alpha"),
        ({"radius": -1.0}, "E-certificate-radius"),
    ):
        with raises_code(code):
            CertifySettings(**settings)  # type: ignore[arg-type]


def test_abstention(purifier: Purifier) -> None:
    seen: list[tuple[int, Certificate]] = []
    (found,) = purifier.certify(eight_bits(1), SMOOTH, n=12, n0=2, noise=1, on_certificate=lambda *c: seen.append(c))
    assert found.abstained and found.label is None and found.radius == 0.0 and found.to_dict()["label"] is None
    assert seen == [(0, found)]


def test_sequential_votes(purifier: Purifier) -> None:
    preset = {**SMOOTH, "votes": {"sequential": {"alpha": 0.05, "max": 20}}}
    data = np.concatenate([eight_bits(6), np.zeros((2, 1, 16, 16), np.float32)])
    alone = [purifier.run(data[i : i + 1], preset, noise=3, ids=[i])[0] for i in range(len(data))]
    together = purifier.run(data, preset, noise=3)
    for a, b in zip(alone, together, strict=True):
        assert (a.label, a.vote_labels, a.abstained) == (b.label, b.vote_labels, b.abstained)
        assert b.unet_calls == len(b.vote_labels)
        assert not b.abstained or 6 < len(b.vote_labels) <= 20  # as long as they could settle it
    assert len(together[-1].vote_labels) == 6 and not together[-1].abstained
    assert together[-1].to_dict()["abstained"] is False
    service = edgepure.Service(purifier, preset)
    with service:
        futures = [service.submit(image, noise=3) for image in data[-3:]]
        assert [f.result().abstained for f in futures][1:] == [False, False]


def test_giving_up_spares_calls_and_changes_no_answer(purifier: Purifier) -> None:
    data = eight_bits(12)
    presets = [
        {**SMOOTH, "votes": {"sequential": {"alpha": 0.001, "max": 20, "give_up": chance}}} for chance in (0.0, 0.9)
    ]
    patient, hasty = (purifier.run(data, preset, noise=3) for preset in presets)
    for one, other in zip(patient, hasty, strict=True):
        assert other.abstained or other.label == one.label
        assert other.unet_calls <= one.unet_calls
    assert sum(r.unet_calls for r in hasty) < sum(r.unet_calls for r in patient)
    for index, together in enumerate(hasty):
        (alone,) = purifier.run(data[index : index + 1], presets[1], noise=3, ids=[index])
        assert (alone.label, alone.vote_labels, alone.abstained) == (
            together.label,
            together.vote_labels,
            together.abstained,
        )
    with raises_code("E-preset"):
        edgepure.Preset.parse({**SMOOTH, "votes": {"sequential": {"give_up": 1.0}}})


def test_sequential_votes_say_how_many_there_are(purifier: Purifier) -> None:
    preset = edgepure.Preset.parse({**SMOOTH, "votes": {"sequential": {"max": 9}}})
    assert (preset.votes.count, preset.votes.rule) == (9, "majority")
    assert edgepure.Preset.parse(preset.model_dump(mode="json")) == preset
    with raises_code("E-votes-sequential"):
        edgepure.Preset.parse({**SMOOTH, "votes": {"count": 3, "sequential": {"max": 9}}})
