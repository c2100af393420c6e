"""The search space: every suggestion is a valid preset within the budget. Nothing is tried out only to fail.

What can be chosen depends on what was chosen before it (votes leave fewer rows for the steps), so the ranges of numbers
are worked out on the way. Categorical choices are the same for all trials of a study, as the sampler needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgepure import Preset
from edgepure.bundle.manifest import Manifest
from edgepure.engines.kinds import check_variant
from edgepure.errors import ConfigError, ProviderError
from edgepure.methods.choices import Choices, Room, Suggest
from edgepure.methods.registry import methods as all_methods
from edgepure.methods.ssni import SsniSpec
from edgepure.report.numerals import number

from .budget import Budget
from .candidate import Candidate
from .settings import TuneSettings

OFF = "off"
#: The presets that tuning writes.
PRESET_NAMES = ("fast", "balanced", "robust")


class SearchSpace:
    """What may be searched for one bundle and budget.

    Args:
        manifest: of the bundle: its schedule, mask graph, learned variance and calibrated SSNI decide what is possible.
        budget: of one decision.
        methods: to search among; None: all.
        precisions: of the graphs to search among.
        most_votes: votes are not searched beyond.

    Raises:
        ConfigError: an unknown method, one that the bundle cannot run, or no method fits into the budget.
    """

    def __init__(
        self,
        manifest: Manifest,
        budget: Budget,
        *,
        methods: Sequence[str] | None = None,
        precisions: Sequence[str] = ("fp32",),
        most_votes: int = 9,
    ) -> None:
        self.budget = budget
        self.timesteps = len(manifest.schedule.build())
        self.precisions = tuple(precisions)
        self.most_votes = most_votes
        self.variances = ("fixed_small", "fixed_large", *(("learned",) if manifest.learned_variance else ()))
        every = {kind: rows for name, choices in searched().items() for kind, rows in _kinds(name, choices).items()}
        self.ssni = {
            name: spec
            for name, spec in calibrated_ssni(manifest).items()
            if budget.rows(1, spec.probe.unet_calls) >= max(every.values())
        }
        wanted = _check_methods(methods, masks=manifest.attention is not None)
        possible = {kind: rows for kind, rows in every.items() if _method(kind) in wanted}
        self.kinds = {kind: rows for kind, rows in possible.items() if budget.rows(1) >= rows}
        if not self.kinds:
            cheapest = min(possible, key=possible.__getitem__)
            cost = budget.cost_of(possible[cheapest])
            raise ConfigError(
                f"no preset can meet a budget of {budget.limit:g} {budget.unit}: the smallest possible is "
                f"{number(cost)} {budget.unit} ({_method(cheapest)}, UNet calls: {possible[cheapest]}); "
                "give at least that",
                code="E-tune-budget-small",
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are searched."""
        return tuple(dict.fromkeys(map(_method, self.kinds)))

    def starts(self) -> list[dict[str, Any]]:
        """Some parameters of the first trials, one for each method."""
        room = Room(1, self.timesteps, self.variances)
        return [{"method": name, **searched()[name].first(room)} for name in self.methods]

    def candidate(self, trial: Suggest) -> Candidate:
        """A preset that compiles on this bundle and stays within the budget."""
        kind = self._kind(trial)
        ssni = self._ssni(trial)
        probes = 0 if ssni is None else ssni.probe.unet_calls
        most = max(v for v in range(1, self.most_votes + 1) if self.budget.rows(v, probes) >= self.kinds[kind])
        count = trial.suggest_int("votes", 1, most)
        rule = trial.suggest_categorical("votes.rule", ("majority", "mean")) if count > 1 else "mean"
        room = Room(self.budget.rows(count, probes), self.timesteps, self.variances)
        method, _, reading = kind.partition("/")
        data: dict[str, Any] = {
            "method": searched()[method].suggest(trial, room, reading),
            "votes": {"count": count, "rule": rule},
            "ssni": ssni,
        }
        if all_methods()[method].needs_mask:
            data["mask"] = _mask(trial)
        precision = self.precisions[0]
        if len(self.precisions) > 1:
            precision = trial.suggest_categorical("precision", self.precisions)
        return Candidate(Preset.parse(data), precision)

    def _kind(self, trial: Suggest) -> str:
        """First the method, then its reading: no method is tried more often for having more readings."""
        method = trial.suggest_categorical("method", self.methods)
        kinds = tuple(kind for kind in self.kinds if _method(kind) == method)
        if len(kinds) == 1:
            return kinds[0]
        return str(trial.suggest_categorical(f"{method}.kind", kinds))

    def _ssni(self, trial: Suggest) -> SsniSpec | None:
        """SSNI with a calibrated probe; how steeply and how far it may lower the noise is searched."""
        if not self.ssni:
            return None
        name = trial.suggest_categorical("ssni", (OFF, *self.ssni))
        if name == OFF:
            return None
        spec = self.ssni[name]
        assert spec.tau is not None
        width = trial.suggest_float("ssni.width", 0.25, 4.0, log=True)
        minimum = trial.suggest_float("ssni.minimum", 0.2, 1.0, step=0.1)
        return spec.model_copy(update={"tau": float(f"{spec.tau * width:.3g}"), "minimum": round(minimum, 1)})


def searched() -> dict[str, Choices]:
    """What may be chosen for each method that can be searched, by its name."""
    found = {name: spec.search_space() for name, spec in all_methods().items()}
    return {name: choices for name, choices in found.items() if choices is not None}


def _kinds(method: str, choices: Choices) -> dict[str, int]:
    """``method/reading`` (or just the method's name) and the fewest rows of each."""
    return {f"{method}/{reading}" if reading else method: rows for reading, rows in choices.readings.items()}


def _method(kind: str) -> str:
    return kind.split("/")[0]


def calibrated_ssni(manifest: Manifest) -> Mapping[str, SsniSpec]:
    """SSNI with the probes that were calibrated on this bundle, the chosen one first, by a name each.

    Where the bundle has no calibration, the statistics are those of its own presets with SSNI. Only sigmoid
    reweighting, without bias: it is bounded by t*, so that the budget holds for every image; the linear one gives an
    image with a large score norm any number of calls.
    """
    specs: list[SsniSpec] = []
    calibration = manifest.calibration
    if calibration is not None:
        chosen = calibration.sigmoid
        specs.append(SsniSpec(probe=calibration.chosen, mu=chosen.mu, tau=chosen.tau))
        specs += [SsniSpec(probe=p.probe, mu=p.clean.mean, tau=p.clean.std) for p in calibration.probes if p.clean.std]
    else:
        own = [preset.ssni for name, preset in sorted(manifest.presets.items()) if name not in PRESET_NAMES]
        specs += [s.model_copy(update={"bias": 0.0}) for s in own if s is not None and s.reweighting == "sigmoid"]
    found: dict[str, SsniSpec] = {}
    for spec in specs:
        levels = spec.probe.levels
        where = f"{spec.probe.probes} levels" if levels is None else f"t {', '.join(f'{t:g}' for t in levels)}"
        found.setdefault(f"probe at {where}", spec)
    return found


def _mask(trial: Suggest) -> dict[str, Any]:
    kind = trial.suggest_categorical("mask", ("minmax area", "minmax threshold", "softmax area"))
    rule, by = kind.split()
    if by == "area":
        return {"rule": rule, "area": round(trial.suggest_float("mask.area", 0.05, 0.95, step=0.05), 2)}
    return {"rule": rule, "threshold": round(trial.suggest_float("mask.threshold", 0.05, 0.95, step=0.05), 2)}


def _check_methods(methods: Sequence[str] | None, *, masks: bool) -> set[str]:
    known = searched()
    if methods is None:
        return {name for name in known if masks or not all_methods()[name].needs_mask}
    for name in methods:
        if name not in known:
            raise ConfigError(
                f"there is no method {name!r} to search; choose among {', '.join(known)}", code="E-tune-method-unknown"
            )
        if all_methods()[name].needs_mask and not masks:
            raise ConfigError(
                f"method {name!r} needs an attention mask, and this bundle has no mask graph; choose another method, "
                "or export the classifier with blocks to tap",
                code="E-tune-method-mask",
            )
    if not methods:
        raise ConfigError(f"no method to search; choose among {', '.join(known)}", code="E-tune-no-method")
    return set(methods)


def searched_precisions(manifest: Manifest, settings: TuneSettings, provider: str) -> tuple[str, ...]:
    """The precisions that are searched: those that are asked for, or all that this provider can run."""
    offered = ("fp32", *manifest.variants)
    for name in settings.precisions or ():
        if name not in offered:
            raise ConfigError(
                f"the bundle has no graphs in {name}; it has {', '.join(offered)}", code="E-bundle-precision"
            )
        check_variant(manifest, name, provider)
    return settings.precisions or tuple(name for name in offered if _made_for(manifest, name, provider))


def _made_for(manifest: Manifest, precision: str, provider: str) -> bool:
    """Whether a variant can run on this engine."""
    try:
        check_variant(manifest, precision, provider)
    except ProviderError:
        return False
    return True
