"""Simulations that confirm what is stated of rates: ``python -m benchmarks.stated_rates``.

Each line is one statement: how often it may be untrue, and how often it was. The printed table is
docs/results/rates.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from edgepure.intervals import anytime_log_evidence, anytime_lower_bound, clopper_pearson
from edgepure.methods.presets import SequentialSpec
from edgepure.purify.ballot import Ballot
from edgepure.purify.monitor import FALSE_ALARMS
from edgepure.purify.tally import FixedTally, RadiusTally, Tally
from edgepure_calibration.calibrate.statistics import auroc, auroc_interval
from edgepure_calibration.evaluate.compare import paired

from .judged_rates import gate_passes, hits, loss_passes, mean_too_low, metric_missed, no_attacks, precisions, unions
from .monitor_rates import ever_alarmed

Labels = NDArray[np.int64]
#: What a line says: what is stated, of what case, the stated rate, the measured one.
Line = tuple[str, str, float, float]


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
            for redraw in (0.0, 0.02, 0.09):
                words = f"{case}; new noise flips {100 * redraw:g} %"
                rate = gate_passes(images, noises, redraw, spread, runs)
                yield "INT8 gate: 1 point too many flips pass", words, 0.05, rate
            yield "INT8 gate: 1 point too much loss passes", case, 0.05, loss_passes(images, noises, spread, runs)
    for images, mean in ((100, 0.05), (400, 0.01), (400, 0.2)):
        rate = mean_too_low(images, 3, mean, max(runs // 4, 20))
        yield "INT8 gate of a task: bound of a mean loss is too low", f"{images} images, mean {mean}", 0.05, rate
    metrics = (
        ("mIoU", unions, 60), ("mIoU", unions, 300), ("mAP", precisions, 60), ("mAP", precisions, 300),
        ("recall 0.5", hits(0.5), 60), ("recall 0.98", hits(0.98), 60), ("recall 0.98", hits(0.98), 300),
    )  # fmt: skip
    for name, make, images in metrics:
        rate = metric_missed(make, images, max(runs // 4, 20))
        yield "interval of a task's metric misses it", f"{name}, {images} images", 0.05, rate
    for clean, attacked, share in ((12, 12, 0.9), (100, 100, 0.9), (400, 100, 0.5)):
        rate = no_attacks(clean, attacked, share, runs)
        case = f"{clean} and {attacked} images, {share} right in both"
        yield "images that are no attacks are taken for attacks", case, 0.05, rate
    for share in (0.6, 0.95):
        rate = certified_wrongly(lambda: FixedTally(20, 400, 0.05), share, None, runs)
        yield "certify: the share of a class is stated too high", f"share {share}, 400 answers", 0.05, rate
        rate = certified_wrongly(lambda s=share: RadiusTally(20, 1000, 0.05, s), share, share, runs // 4)  # type: ignore[misc]
        case = f"share {share} just fails, up to 1000 answers"
        yield "certify --radius: a radius that does not hold is certified", case, 0.05, rate
    for reference, flag in ((199, 0.02), (360, 0.01), (1000, 0.05)):
        rate = ever_alarmed(reference, flag, 1_000_000, max(runs // 10, 20))
        yield (
            "monitor: ever an alarm on ordinary traffic",
            f"{reference} norms, rate {flag}, 1e6 images",
            FALSE_ALARMS,
            rate,
        )
    for trials, share in ((60, 0.5), (360, 0.02), (360, 0.5), (1000, 0.97)):
        yield (
            "Clopper-Pearson misses the share",
            f"{trials} trials, share {share}",
            0.05,
            missed(clopper_pearson, trials, share),
        )
    for share in (0.05, 0.5, 0.95):
        rate = ever_wrong(share, 2000, max(runs // 2, 20), 0.05)
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
    """Print the table; ``--effort`` takes fewer or more runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stated_rates", description=(__doc__ or "").strip())
    parser.add_argument("--effort", type=float, default=1.0, help="of the number of runs (default: %(default)s)")
    asked = parser.parse_args()
    print("| what may be untrue | case | stated, at most | measured |\n|---|---|---|---|")
    for what, case, stated, measured in lines(asked.effort):
        print(f"| {what} | {case} | {100 * stated:g} % | {100 * measured:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
