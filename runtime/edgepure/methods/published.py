"""Presets with published settings, each with its source, and `edge` presets with 2 to 10 UNet calls.

``edgepure presets`` lists them; ``edgepure export --preset NAME`` puts one into a bundle. The numbers are those of the
authors' scripts (repository and commit are named) or of the papers; nothing was re-measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ..errors import ConfigError
from ..rows.schedule import NoiseSchedule
from .presets import Preset
from .published_settings import ENTRIES

#: What SSNI measures on clean images before it can be used, per reweighting.
STATISTICS = {"sigmoid": ("mu", "tau"), "linear": ("xi_min", "xi_max")}


@dataclass(frozen=True)
class Cost:
    """UNet calls of one decision: ``total = rows * votes + probes``, at the full noise level with SSNI."""

    rows: int
    votes: int
    probes: int

    @property
    def total(self) -> int:
        return self.rows * self.votes + self.probes


@dataclass(frozen=True)
class PublishedPreset:
    """A preset and where it comes from.

    Attributes:
        name: its name, ``<data set>-<method>[-<variant>]``.
        datasets: that the settings are for.
        classifiers: that their authors used them with; empty: any.
        diffusion: the diffusion model that they are for.
        image: channels, height and width.
        source: paper and section, or repository, commit and script.
        settings: the preset as plain data; with SSNI, without its statistics.
        measured: False for settings that no paper or script gives for these data sets.
        mask_input: what the tapped classifier must see, see `AttentionEntry`; ``official`` is an oddity of the authors.
    """

    name: str
    datasets: tuple[str, ...]
    classifiers: tuple[str, ...]
    diffusion: str
    image: tuple[int, int, int]
    source: str
    settings: Mapping[str, Any]
    measured: bool = True
    mask_input: Literal["own", "official"] = "own"

    @property
    def needs(self) -> tuple[str, ...]:
        """Statistics of the score norm that SSNI has to measure first; empty without SSNI."""
        ssni = self.settings.get("ssni")
        return STATISTICS[ssni["reweighting"]] if ssni is not None else ()

    @cached_property
    def cost(self) -> Cost:
        """UNet calls, with the linear VP schedule that all published models share."""
        bare = Preset.parse({k: v for k, v in self.settings.items() if k != "ssni"})
        schedule = NoiseSchedule.linear()
        elements = self.image[0] * self.image[1] * self.image[2]
        rows = sum(stage.method.compile(schedule, elements).unet_calls for stage in bare.stages)
        probes = int(self.settings["ssni"]["probe"]["probes"]) if self.needs else 0
        return Cost(rows, bare.votes.count, probes)

    def data(self, statistics: Mapping[str, float] | None = None) -> dict[str, Any]:
        """The preset as plain data, with the statistics that SSNI needs.

        Raises:
            ConfigError: statistics are missing, or were given for a preset that has none.
        """
        given = dict(statistics or {})
        unknown = sorted(set(given) - set(self.needs))
        if unknown:
            wanted = f"it takes {' and '.join(self.needs)}" if self.needs else "it has no SSNI"
            raise ConfigError(
                f"preset {self.name!r} does not take {', '.join(unknown)}: {wanted}", code="E-ssni-not-taken"
            )
        missing = [name for name in self.needs if name not in given]
        if missing:
            raise ConfigError(
                f"preset {self.name!r} needs {' and '.join(missing)}, statistics of the score norms of clean images "
                "that belong to one diffusion model and probe (the paper uses 5000 training images; "
                "edgepure.methods.ssni.reference_statistics computes them): measure them and give "
                + " ".join(f"--set ssni.{name}=..." for name in missing),
                code="E-ssni-statistics",
            )
        result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in self.settings.items()}
        if self.needs:
            result["ssni"] = {**self.settings["ssni"], **given}
        return result

    def build(self, statistics: Mapping[str, float] | None = None) -> Preset:
        """The preset. Errors as `data`."""
        return Preset.parse(self.data(statistics))


def published() -> Mapping[str, PublishedPreset]:
    """All of them by name."""
    return _PUBLISHED


def published_preset(name: str) -> PublishedPreset:
    """One of them.

    Raises:
        ConfigError: unknown name; says the nearest ones.
    """
    if name not in _PUBLISHED:
        from difflib import get_close_matches

        close = get_close_matches(name, _PUBLISHED, n=4, cutoff=0.4)
        raise ConfigError(
            f"there is no published preset {name!r}{'; near it are ' + ', '.join(close) if close else ''} "
            "(`edgepure presets` lists all)",
            code="E-preset-unknown",
        )
    return _PUBLISHED[name]


def choose(names: Sequence[str], statistics: Mapping[str, float] | None = None) -> dict[str, Preset]:
    """Several by name. ``statistics`` go to those that need them.

    Raises:
        ConfigError: unknown name, one that is given twice, or missing or needless statistics.
    """
    given = dict(statistics or {})
    entries = [published_preset(name) for name in names]
    for name in names:
        if list(names).count(name) > 1:
            raise ConfigError(f"preset {name!r} was given twice", code="E-preset-twice")
    for key in given:
        if not any(key in entry.needs for entry in entries):
            raise ConfigError(
                f"none of the presets {', '.join(names)} takes {key}; leave it out", code="E-ssni-not-taken"
            )
    return {p.name: p.build({k: v for k, v in given.items() if k in p.needs}) for p in entries}


def mask_input(names: Sequence[str]) -> Literal["own", "official"]:
    """What the tapped classifier must see for these presets.

    Raises:
        ConfigError: they contradict each other; a bundle has one mask graph.
    """
    inputs = {p.mask_input: p.name for p in map(published_preset, names) if p.settings.get("mask") is not None}
    if len(inputs) > 1:
        raise ConfigError(
            f"presets {inputs['own']!r} and {inputs['official']!r} want different mask inputs, and a bundle has one "
            "mask graph; choose own or official for both (--mask-input)",
            code="E-mask-input-two",
        )
    return next(iter(inputs), "own")


def _all() -> Iterator[PublishedPreset]:
    for entry in ENTRIES:
        yield PublishedPreset(**entry)


_PUBLISHED: dict[str, PublishedPreset] = {preset.name: preset for preset in _all()}
