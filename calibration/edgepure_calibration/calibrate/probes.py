"""Which probes a calibration tries, and which of them it chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from edgepure.bundle.calibration import ProbeCalibration
from edgepure.errors import ConfigError
from edgepure.methods import EpsSpec

#: With or without noise, or both.
NoiseChoice = Literal["both", "with", "without"]

#: Timesteps of the probes that are tried; several in one tuple are one probe of that many UNet calls.
DEFAULT_LEVELS: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (2.0,),
    (5.0,),
    (10.0,),
    (20.0,),
    (50.0,),
    (100.0,),
    (200.0,),
    (5.0, 10.0, 20.0),
)


def parse_levels(text: str) -> tuple[tuple[float, ...], ...]:
    """``1,10,5+10+20``: three probes, the last of them of three UNet calls.

    Raises:
        ConfigError: not of this form.
    """
    try:
        levels = tuple(tuple(float(part) for part in probe.split("+")) for probe in text.split(","))
    except ValueError:
        levels = ()
    if not levels or any(level < 1.0 for probe in levels for level in probe):
        raise ConfigError(
            f"probe timesteps {text!r}: expected timesteps from 1 on, for example 1,10,5+10+20", code="E-probe-text"
        )
    return levels


def candidates(
    own: Sequence[EpsSpec], levels: Sequence[Sequence[float]], noise: NoiseChoice, full: int, timesteps: int
) -> list[EpsSpec]:
    """The probes to try: those of the bundle, each of ``levels``, and the papers' probe of ``full`` calls (0: none).

    Args:
        own: probes of the bundle's presets.
        levels: timesteps of each probe.
        noise: whether the probes of ``levels`` see the image with noise, without, or both are tried.
        full: s = 1/T .. full/T, with noise.
        timesteps: T of the schedule; levels beyond it are left out.

    Raises:
        ConfigError: nothing is left to try.
    """
    label = own[0].label if own else "continuous"
    kinds = {"both": (True, False), "with": (True,), "without": (False,)}[noise]
    tried = [
        EpsSpec(levels=tuple(level), perturb=kind, label=label)
        for level in levels
        if max(level) <= timesteps
        for kind in kinds
    ]
    if full:
        tried.append(EpsSpec(probes=min(full, timesteps), label=label))
    unique: list[EpsSpec] = []
    for probe in [*own, *tried]:
        if not any(probe.same_rows(other) for other in unique):
            unique.append(probe)
    if not unique:
        raise ConfigError(
            f"every probe timestep lies beyond the {timesteps} of this bundle's schedule; choose smaller",
            code="E-probe-range",
        )
    return unique


def choose(measured: Sequence[ProbeCalibration]) -> tuple[ProbeCalibration, str]:
    """The cheapest probe that separates as well as the best one, and the reason in a sentence.

    "As well" is an AUROC not below the 95 % interval of the best. Among equally cheap ones the larger AUROC decides,
    and then the larger distance of the means.
    """
    separated = [(p, p.separation) for p in measured if p.separation is not None]
    best, found = max(separated, key=lambda pair: (pair[1].auroc, pair[1].difference))
    good = [(p, s) for p, s in separated if s.auroc >= found.low]
    fewest = min(p.probe.unet_calls for p, _ in good)
    chosen, own = max(
        ((p, s) for p, s in good if p.probe.unet_calls == fewest), key=lambda pair: (pair[1].auroc, pair[1].difference)
    )
    others = {"attacked": "attacked images", "random signs": "images with random signs added"}[own.against]
    reason = (
        f"{describe(chosen.probe)}: AUROC {own.auroc:.3f} ({own.low:.3f} to {own.high:.3f}) against {others}; the "
        f"fewest UNet calls of the {len(good)} of {len(separated)} probes whose AUROC lies in the interval of the best"
    )
    if best.probe.unet_calls > fewest:
        reason += f" ({describe(best.probe)}, {found.auroc:.3f})"
    return chosen, reason


def ranked(probes: Iterable[ProbeCalibration]) -> list[ProbeCalibration]:
    """Best AUROC first; equal ones by their UNet calls, then by the distance of the means."""

    def rank(entry: ProbeCalibration) -> tuple[float, int, float]:
        found = entry.separation
        return (-found.auroc if found else 0.0, entry.probe.unet_calls, -found.difference if found else 0.0)

    return sorted(probes, key=rank)


def describe(probe: EpsSpec) -> str:
    """``t 10, no noise, 1 call``."""
    levels = probe.visited
    regular = len(levels) > 3 and levels == tuple(float(k) for k in range(1, len(levels) + 1))
    where = f"1 to {levels[-1]:g}" if regular else "+".join(f"{level:g}" for level in levels)
    calls = f"{len(levels)} calls" if len(levels) > 1 else "1 call"
    return f"t {where}, {'noise' if probe.perturb else 'no noise'}, {calls}"
