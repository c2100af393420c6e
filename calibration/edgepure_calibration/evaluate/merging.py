"""What earlier evaluations of the same graphs measured, beside what a new one did: the stronger measurement stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..attacks.protocol import AttackProtocol
from .results import AttackResult, Evaluated, PresetResult, attack_result_of, preset_result_of

Crossed = tuple[str, str, AttackResult]


@dataclass(frozen=True)
class Earlier:
    """What is on a card already; attributes as those of `Evaluated`."""

    presets: Sequence[PresetResult] = ()
    baselines: Sequence[PresetResult] = ()
    crossed: Sequence[Crossed] = ()
    experiments: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)


def earlier_of(data: Mapping[str, Any]) -> Earlier:
    """The reverse of `Evaluated.to_dict`, as far as a card shows it. Raises KeyError, TypeError or ConfigError."""
    from .baselines import BaselinePreset  # these need PyTorch
    from .noise_experiment import policy_result_of

    return Earlier(
        presets=tuple(map(preset_result_of, data["presets"])),
        baselines=tuple(preset_result_of(part, BaselinePreset) for part in data.get("baselines", ())),
        crossed=tuple((part["attacked"], part["answers"], attack_result_of(part)) for part in data.get("crossed", ())),
        experiments={
            name: {preset: tuple(map(policy_result_of, found)) for preset, found in by_preset.items()}
            for name, by_preset in data["experiments"].items()
        },
    )


def merged(found: Evaluated, earlier: Earlier) -> tuple[Evaluated, tuple[str, ...]]:
    """An evaluation with what earlier ones measured beside it, or more strongly; and what of the latter was kept.

    Its protocols keep the numbers that they have in ``found``; those of the earlier ones come after them.
    """
    kept: list[str] = []
    changed = {
        new.name for new in found.presets for old in earlier.presets if old.name == new.name and not _same(new, old)
    }
    presets = _merged_presets(found.presets, earlier.presets, kept)
    crossed = {(attacked, name, _line(r.protocol)): (attacked, name, r) for attacked, name, r in found.crossed}
    for attacked, name, old in earlier.crossed:
        place = attacked, name, _line(old.protocol)
        if changed.isdisjoint((attacked, name)) and (place not in crossed or _weaker(crossed[place][2], old)):
            crossed[place] = attacked, name, old
    experiments = {
        name: {
            **{p: done for p, done in earlier.experiments.get(name, {}).items() if p not in changed},
            **found.experiments.get(name, {}),
        }
        for name in (*earlier.experiments, *found.experiments)
    }
    whole = replace(
        found,
        presets=presets,
        baselines=_merged_presets(found.baselines, earlier.baselines, kept),
        crossed=tuple(crossed.values()),
        experiments={name: by_preset for name, by_preset in experiments.items() if by_preset},
        numbered=tuple(found.protocols()),
    )
    return whole, tuple(kept)


def _merged_presets(
    new: Sequence[PresetResult], earlier: Sequence[PresetResult], kept: list[str]
) -> tuple[PresetResult, ...]:
    mine = {preset.name: preset for preset in new}
    presets: dict[str, PresetResult] = {}
    for old in earlier:
        if old.name not in mine:
            presets[old.name] = old
        elif _same(mine[old.name], old):
            presets[old.name] = _merged_preset(mine[old.name], old, kept)
    return (*presets.values(), *(preset for name, preset in mine.items() if name not in presets))


def _same(new: PresetResult, old: PresetResult) -> bool:
    """Whether two results are of one preset: its name may have been given to another one meanwhile."""
    first, second = (result.preset.model_copy(update={"description": ""}) for result in (new, old))
    return first == second


def _merged_preset(new: PresetResult, old: PresetResult, kept: list[str]) -> PresetResult:
    lines = {_line(attack.protocol): attack for attack in old.attacks}
    union, weaker = new.union, len(old.attacks) > len(new.attacks)
    for attack in new.attacks:
        line = _line(attack.protocol)
        before = lines.get(line)
        if before is not None and _weaker(attack, before):
            kept.append(f"{new.name}, {attack.protocol.title}")
            weaker = True
        else:
            lines[line] = attack
    if weaker:
        union = old.union or union  # its protocol says of which attacks it is
    clean = old.clean if _weaker(new.clean, old.clean) else new.clean
    return replace(new, clean=clean, attacks=tuple(lines.values()), union=union)


def _line(protocol: AttackProtocol) -> tuple[Any, ...]:
    """What is one line of the table: the attack and its bound."""
    return protocol.title, protocol.norm, protocol.eps, protocol.bounded


def _weaker(new: AttackResult, old: AttackResult) -> bool:
    """Whether a run is weaker than another in anything that makes a number trustworthy."""

    def strength(found: AttackResult) -> tuple[int, ...]:
        p = found.protocol
        return (found.plain.images, p.steps or 0, p.eot or 0, p.queries or 0, p.restarts or 0, len(p.seeds))

    return any(a < b for a, b in zip(strength(new), strength(old), strict=True))
