"""Simulations that confirm what is stated of rates: ``python -m benchmarks.stated_rates``.

Each line is one statement: how often it may be untrue, and how often it was. The printed table is
docs/results/rates.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from edgepure.intervals import anytime_log_evidence, anytime_lower_bound, clopper_pearson
from edgepure.methods.presets import SequentialSpec
from edgepure.purify.ballot import Ballot
from edgepure.purify.monitor import FALSE_ALARMS
from edgepure_calibration.calibrate.statistics import auroc, auroc_interval
from edgepure_calibration.evaluate.compare import paired
from edgepure_calibration.quantize.labels import decision_checks, flips_of
from edgepure_calibration.quantize.verdict import Limits

from .monitor_rates import ever_alarmed

Labels = NDArray[np.int64]
#: What a line says: what is stated, of what case, the stated rate, the measured one.
Line = tuple[str, str, float, float]


def clustered(rng: np.random.Generator, share: float, images: int, noises: int, spread: str) -> NDArray[np.bool_]:
    """Events ``[images, noises]`` of a mean share: ``alike`` for every image, ``whole`` images or none of their
    noises, or between the two (``mixed``: beta-distributed shares)."""
    if spread == "whole":
        return np.repeat(rng.random((images, 1)) < share, noises, axis=1)
    own = np.full(images, share) if spread == "alike" else rng.beta(2 * share, 2 * (1 - share), images)
    return rng.random((images, noises)) < own[:, None]


def gate_passes(images: int, noises: int, redraw: float, spread: str, runs: int, seed: int = 0) -> float:
    """How often a variant passes the check of flips that flips exactly what is not allowed any more: the limit above
    what new noise flips in truth. ``redraw``: of the decisions, by new noise."""
    rng, limits, passed = np.random.default_rng(seed), Limits(), 0
    for _ in range(runs):
        # two noises of an image differ with probability 2 q (1 - q)
        q = (1.0 - np.sqrt(1.0 - 2.0 * redraw)) / 2.0
        theirs = (rng.random((images, noises)) < q).astype(np.int64)
        mine = theirs + 2 * clustered(rng, redraw + limits.flips, images, noises, spread)
        passed += decision_checks({"clean": flips_of(mine, theirs, None)}, limits)[0].passed
    return passed / runs


def loss_passes(images: int, noises: int, spread: str, runs: int, seed: int = 0) -> float:
    """How often a variant passes the check of accuracy that loses exactly what is not allowed any more: 3 points lost,
    2 gained where fp32 was wrong (a tenth of the images)."""
    rng, limits, passed = np.random.default_rng(seed), Limits(), 0
    truth = np.zeros(images, np.int64)
    for _ in range(runs):
        wrong = rng.random(images) < 0.1
        theirs = np.repeat(wrong[:, None], noises, axis=1).astype(np.int64)
        lost = clustered(rng, (0.02 + limits.accuracy) / 0.9, images, noises, spread) & ~wrong[:, None]
        gained = clustered(rng, 0.02 / 0.1, images, noises, spread) & wrong[:, None]
        mine = np.where(lost, 2, np.where(gained, 0, theirs))
        passed += decision_checks({"clean": flips_of(mine, theirs, truth)}, limits)[1].passed
    return passed / runs


def missed(interval: Callable[[int, int], tuple[float, float]], trials: int, share: float) -> float:
    """How often an interval of a binomial share misses it: the exact sum over all counts, no simulation."""
    from scipy.stats import binom

    bounds = np.array([interval(count, trials) for count in range(trials + 1)])
    outside = (bounds[:, 0] > share) | (bounds[:, 1] < share)
    return float(binom.pmf(np.flatnonzero(outside), trials, share).sum())


def ever_wrong(share: float, trials: int, runs: int, alpha: float, seed: int = 0) -> float:
    """How often the lower bound that may be looked at after every trial ever lies above the share."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(runs):
        wins = np.cumsum(rng.random(trials) < share)
        places = np.flatnonzero(wins > share * np.arange(1, trials + 1))  # below the share no bound is above it
        evidence = [anytime_log_evidence(int(wins[i]), int(i) + 1, share) for i in places]
        place = places[int(np.argmax(evidence))] if len(places) else None
        found += place is not None and anytime_lower_bound(int(wins[place]), int(place) + 1, alpha) > share
    return found / runs


def ballots(shares: tuple[float, ...], runs: int, spec: SequentialSpec, seed: int = 0) -> float:
    """How often votes that stop early settle on a class than which another is as probable."""
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(runs):
        ballot = Ballot(spec)
        while ballot.open:
            ballot.cast(int(rng.choice(len(shares), p=shares)))
        settled = ballot.settled
        wrong += settled is not None and shares[settled] <= max(s for i, s in enumerate(shares) if i != settled)
    return wrong / runs


def auroc_missed(true: float, clean: int, other: int, runs: int, seed: int = 0) -> float:
    """How often the interval of an AUROC misses it: normal norms, the others shifted."""
    from scipy.stats import norm

    rng, found = np.random.default_rng(seed), 0
    shift = float(norm.ppf(true)) * np.sqrt(2.0)
    for _ in range(runs):
        value = auroc(rng.standard_normal(clean), rng.standard_normal(other) + shift)
        low, high = auroc_interval(value, clean, other)
        found += not low <= true <= high
    return found / runs


def paired_wrong(images: int, only: tuple[float, float], runs: int, seed: int = 0) -> tuple[float, float]:
    """Of the comparison of two presets: how often its interval misses the true difference, and how often p is at most
    0.05 (which is an error only where there is no difference)."""
    rng, missing, significant = np.random.default_rng(seed), 0, 0
    for _ in range(runs):
        kind = rng.choice(3, images, p=(only[0], only[1], 1.0 - sum(only)))
        found = paired("a", "b", "pgd", "single", kind != 1, kind != 0)
        missing += not found.low <= only[0] - only[1] <= found.high
        significant += found.p <= 0.05
    return missing / runs, significant / runs


def lines(effort: float = 1.0) -> Iterator[Line]:
    """All statements. ``effort``: of the number of runs."""
    runs = max(int(2000 * effort), 20)
    for images, noises in ((400, 5), (1000, 5), (400, 25)):
        for spread in ("whole", "mixed", "alike"):
            case = f"{images} images x {noises} noises, {spread}"
            rate = gate_passes(images, noises, 0.02, spread, runs)
            yield "INT8 gate: 1 point too many flips pass", case, 0.05, rate
            yield "INT8 gate: 1 point too much loss passes", case, 0.05, loss_passes(images, noises, spread, runs)
    for reference, flag in ((199, 0.02), (360, 0.01), (1000, 0.05)):
        rate = ever_alarmed(reference, flag, 100_000, max(runs // 10, 20))
        yield "monitor: ever an alarm on ordinary traffic", f"{reference} norms, rate {flag}", FALSE_ALARMS, rate
    for trials, share in ((60, 0.5), (360, 0.02), (360, 0.5), (1000, 0.97)):
        yield (
            "Clopper-Pearson misses the share",
            f"{trials} trials, share {share}",
            0.05,
            missed(clopper_pearson, trials, share),
        )
    for share in (0.05, 0.5, 0.95):
        rate = ever_wrong(share, 2000, max(runs // 4, 20), 0.05)
        yield "anytime bound is ever too high", f"share {share}, 2000 trials", 0.05, rate
    spec = SequentialSpec(alpha=0.05, max=200)
    for shares in ((0.5, 0.5), (0.51, 0.49), (0.4, 0.35, 0.25), (0.2,) * 5):
        case = "shares " + ", ".join(map(str, shares))
        yield "sequential votes settle on a class that is not the first", case, 0.05, ballots(shares, runs, spec)
    for true, count in ((0.6, 100), (0.9, 100), (0.99, 360)):
        rate = auroc_missed(true, count, count, runs)
        yield "AUROC interval misses it", f"AUROC {true}, {count} + {count} images", 0.05, rate
    for images, only in ((100, (0.1, 0.1)), (360, (0.05, 0.02)), (360, (0.01, 0.01))):
        missing, significant = paired_wrong(images, only, runs)
        case = f"{images} images, {only[0]} and {only[1]} right in one alone"
        yield "compare: the interval misses the difference", case, 0.05, missing
        if only[0] == only[1]:
            yield "compare: significant without a difference", case, 0.05, significant


def main() -> None:
    """Print the table."""
    print("| what may be untrue | case | stated, at most | measured |\n|---|---|---|---|")
    for what, case, stated, measured in lines():
        print(f"| {what} | {case} | {100 * stated:g} % | {100 * measured:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
