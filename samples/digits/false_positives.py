"""How often does the score-norm monitor flag clean digits that no calibration has seen? Prints a table.

    python samples/digits/false_positives.py

takes seconds. Once with half of the held-back test images as the reference and the other half as new ones, many random
splits; once with the shipped bundle's own reference, which are training images.
"""

from __future__ import annotations

import numpy as np
from data import load_digits_split

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure.purify import Reference, reference_of

RATES = (0.01, 0.02, 0.05, 0.1)
SPLITS = 200


def flagged(reference: Reference, norms: np.ndarray) -> str:
    """The share flagged at each rate; a rate that the reference is too small for is left out."""
    values = np.array([reference.p_value(n) for n in norms])
    return " | ".join(f"{100 * np.mean(values <= a):.1f} %" if reference.smallest <= a else "-" for a in RATES)


def main() -> None:
    """Print the table."""
    test = load_digits_split().test.images.astype(np.float32)
    with edgepure.load(demo_bundle()) as purifier:
        calibration = purifier.bundle.manifest.calibration
        assert calibration is not None
        probe = calibration.chosen
        shipped = reference_of(calibration, probe, "fp32")
        assert shipped is not None
        norms = purifier.score_norms(test, probe, noise=1)
        attacked = purifier.score_norms(demo_images().adversarial, probe, noise=1)
    half = len(norms) // 2
    orders = [np.random.default_rng(seed).permutation(norms) for seed in range(SPLITS)]
    # All references have the same size, so the splits can be joined as p-values.
    values = np.concatenate([[Reference(sorted(o[:half])).p_value(n) for n in o[half:]] for o in orders])
    smallest = Reference(sorted(norms[:half])).smallest
    joined = " | ".join(f"{100 * np.mean(values <= a):.1f} %" if smallest <= a else "-" for a in RATES)
    print(f"| reference | stated {' | '.join(f'{100 * a:g} %' for a in RATES)} |\n|---|{'---|' * len(RATES)}")
    print(f"| {half} held-out digits, on the {len(norms) - half} others ({SPLITS} splits) | {joined} |")
    print(
        f"| {len(shipped)} training digits (the shipped bundle), on {len(norms)} held-out ones | "
        f"{flagged(shipped, norms)} |"
    )
    print(f"\nattacked digits, the shipped reference: {flagged(shipped, attacked)}")


if __name__ == "__main__":
    main()
