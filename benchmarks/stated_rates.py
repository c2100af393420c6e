"""Simulations that confirm what is stated of rates: ``python -m benchmarks.stated_rates``.

Each line is one statement: how often it may be untrue, and how often it was. The printed table is
docs/results/rates.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgepure.intervals import anytime_log_evidence, anytime_lower_bound, clopper_pearson
from edgepure.methods.presets import SequentialSpec
from edgepure.purify.ballot import Ballot
from edgepure.purify.monitor import FALSE_ALARMS
from edgepure.purify.tally import FixedTally, RadiusTally, Tally
from edgepure_calibration.calibrate.statistics import auroc, auroc_interval
from edgepure_calibration.evaluate.compare import Comparison, paired

from .judged_rates import gate_passes, hits, loss_passes, mean_too_low, metric_missed, no_attacks, precisions, unions
from .monitor_rates import ever_alarmed

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Statement:
    """What is stated, of what case, how often it may be untrue, and what measures how often it is."""

    what: str
    case: str
    stated: float
    measure: Callable[[], float]


def certified_wrongly(make: Callable[[], Tally], share: float, stated: float | None, runs: int, seed: int = 0) -> float:
    """How often the share of a class is certified to be more than it is; ``stated``: or than what is asked for."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(runs):
        tally = make()
        while not tally.done:
            for label in rng.random(64) >= share:
                tally.add(tally.answers, int(label))
        result = tally.result()
        found += result.label == 0 and result.probability > (share if stated is None else stated)
    return found / runs


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


def paired_missed(images: int, only: tuple[float, float], runs: int, seed: int = 0) -> float:
    """Of the comparison of two presets: how often its interval misses the true difference."""
    compared = [_compared(images, only, n) for n in np.random.SeedSequence(seed).spawn(runs)]
    return float(np.mean([not c.low <= only[0] - only[1] <= c.high for c in compared]))


def paired_significant(images: int, only: tuple[float, float], runs: int, seed: int = 0) -> float:
    """How often its p is at most 0.05, where there is no difference."""
    return float(np.mean([_compared(images, only, n).p <= 0.05 for n in np.random.SeedSequence(seed).spawn(runs)]))


def _compared(images: int, only: tuple[float, float], seed: np.random.SeedSequence) -> Comparison:
    kind = np.random.default_rng(seed).choice(3, images, p=(only[0], only[1], 1.0 - sum(only)))
    return paired("a", "b", "pgd", "single", kind != 1, kind != 0)


def statements(effort: float = 1.0) -> list[Statement]:
    """All of them. ``effort``: of the number of runs."""
    runs = max(int(2000 * effort), 20)
    half, few = max(runs // 2, 20), max(runs // 4, 20)
    found: list[Statement] = []

    def add(what: str, case: str, measure: Callable[[], float], stated: float = 0.05) -> None:
        found.append(Statement(what, case, stated, measure))

    for images, noises in ((400, 5), (1000, 5), (400, 25)):
        for spread in ("whole", "mixed", "alike"):
            case = f"{images} images x {noises} noises, {spread}"
            for redraw in (0.0, 0.02, 0.09) if noises == 5 else (0.02,):
                words = f"{case}; new noise flips {100 * redraw:g} %"
                measure = partial(gate_passes, images, noises, redraw, spread, runs)
                add("INT8 gate: 1 point too many flips pass", words, measure)
            add("INT8 gate: 1 point too much loss passes", case, partial(loss_passes, images, noises, spread, runs))
    for images, mean in ((100, 0.05), (400, 0.01), (400, 0.2)):
        case = f"{images} images, mean {mean}"
        add("INT8 gate of a task: bound of a mean loss is too low", case, partial(mean_too_low, images, 3, mean, few))
    for name, make, images in (
        ("mIoU", unions, 60), ("mIoU", unions, 300), ("mAP", precisions, 60), ("mAP", precisions, 300),
        ("recall 0.5", hits(0.5), 60), ("recall 0.98", hits(0.98), 60), ("recall 0.98", hits(0.98), 300),
    ):  # fmt: skip
        case = f"{name}, {images} images"
        add("interval of a task's metric misses it", case, partial(metric_missed, make, images, few))
    for clean, attacked, share in ((12, 12, 0.9), (100, 100, 0.9), (400, 100, 0.5)):
        case = f"{clean} and {attacked} images, {share} right in both"
        add("images that are no attacks are taken for attacks", case, partial(no_attacks, clean, attacked, share, runs))
    for share in (0.6, 0.95):
        fixed, radius = partial(FixedTally, 20, 400, 0.05), partial(RadiusTally, 20, 1000, 0.05, share)
        case = f"share {share}, 400 answers"
        add(
            "certify: the share of a class is stated too high",
            case,
            partial(certified_wrongly, fixed, share, None, runs),
        )
        case = f"share {share} just fails, up to 1000 answers"
        add(
            "certify --radius: a radius that does not hold", case, partial(certified_wrongly, radius, share, share, few)
        )
    for reference, flag in ((199, 0.02), (360, 0.01), (1000, 0.05)):
        case = f"{reference} norms, rate {flag}, 1e6 images"
        measure = partial(ever_alarmed, reference, flag, 1_000_000, max(runs // 10, 20))
        add("monitor: ever an alarm on ordinary traffic", case, measure, FALSE_ALARMS)
    for trials, share in ((60, 0.5), (360, 0.02), (360, 0.5), (1000, 0.97)):
        case = f"{trials} trials, share {share}"
        add("Clopper-Pearson misses the share", case, partial(missed, clopper_pearson, trials, share))
    for share in (0.05, 0.5, 0.95):
        case = f"share {share}, 2000 trials"
        add("anytime bound is ever too high", case, partial(ever_wrong, share, 2000, half, 0.05))
    spec = SequentialSpec(alpha=0.05, max=200)
    for shares in ((0.5, 0.5), (0.51, 0.49), (0.4, 0.35, 0.25), (0.2,) * 5):
        case = "shares " + ", ".join(map(str, shares))
        add("sequential votes settle on a class that is not the first", case, partial(ballots, shares, runs, spec))
    for true, count in ((0.6, 100), (0.9, 100), (0.99, 360)):
        case = f"AUROC {true}, {count} + {count} images"
        add("AUROC interval misses it", case, partial(auroc_missed, true, count, count, runs))
    for images, only in ((100, (0.1, 0.1)), (360, (0.05, 0.02)), (360, (0.01, 0.01))):
        case = f"{images} images, {only[0]} and {only[1]} right in one alone"
        add("compare: the interval misses the difference", case, partial(paired_missed, images, only, runs))
        if only[0] == only[1]:
            add("compare: significant without a difference", case, partial(paired_significant, images, only, runs))
    return found


def main() -> None:
    """Print the table, or some lines of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stated_rates", description=(__doc__ or "").strip())
    parser.add_argument("--effort", type=float, default=1.0, help="of the number of runs (default: %(default)s)")
    parser.add_argument("--lines", default=":", metavar="FIRST:END", help="these lines alone, from 0")
    asked = parser.parse_args()
    first, _, end = asked.lines.partition(":")
    print("| what may be untrue | case | stated, at most | measured |\n|---|---|---|---|")
    for one in statements(asked.effort)[int(first or 0) : int(end) if end else None]:
        print(f"| {one.what} | {one.case} | {100 * one.stated:g} % | {100 * one.measure():.1f} % |", flush=True)


if __name__ == "__main__":
    main()
