"""How often the monitor's alarm is raised on ordinary traffic: ``python -m benchmarks.monitor_rates``.

Each simulated service has a calibration of its own, and is asked after every image whether its traffic is unusual. The
stated chance that it ever says so is `edgepure.purify.monitor.FALSE_ALARMS`.
"""

from __future__ import annotations

import numpy as np

from edgepure.purify.monitor import FALSE_ALARMS, is_unusual


def ever_alarmed(
    reference: int, flag_rate: float, images: int, services: int, seed: int = 0, factor: float = 1.0
) -> float:
    """The share of services with an alarm within so many images, asked at every flagged one.

    ``factor``: the traffic is flagged so many times as often as ordinary traffic.
    """
    rng = np.random.default_rng(seed)
    flags = 2 * int(np.floor(flag_rate * (reference + 1) / 2 + 1e-9))
    alarms = 0
    for share in rng.beta(flags, reference + 1 - flags, services):
        # the count changes at a flagged image only, and between two of them the evidence falls
        gaps = rng.geometric(min(1.0, factor * share), int(2 * factor * images * share) + 50)
        positions = np.cumsum(gaps)
        alarms += any(
            is_unusual(count, int(position), flag_rate, reference)
            for count, position in enumerate(positions[positions <= images], start=1)
        )
    return alarms / services


def main() -> None:
    for reference in (199, 360, 1000):
        for rate in (0.01, 0.02, 0.05):
            if 2 / (reference + 1) <= rate:
                found = {n: ever_alarmed(reference, rate, n, 200) for n in (10_000, 100_000, 1_000_000)}
                power = ever_alarmed(reference, rate, 10_000, 200, factor=4.0)
                print(
                    f"{reference} norms, rate {rate}: ever an alarm after n images {found} (stated: at most "
                    f"{FALSE_ALARMS}); of traffic flagged four times as often, after 10,000: {power}"
                )


if __name__ == "__main__":
    main()
