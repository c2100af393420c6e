"""The presets that are in a bundle: which they are, which is the default, which go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bundle.bundle import Bundle
from ..bundle.edit import edit_bundle
from ..bundle.manifest import Manifest
from ..errors import ConfigError
from ..methods.presets import Preset
from .output import emit_json, say, table

PRESET_NOTE = "* the default. UNet calls of a decision: rows x votes + probe; with SSNI an image may need fewer"


def change(path: Path, default: str | None, remove: Sequence[str]) -> None:
    """Make one the default, and take others out, together with what the self-test recorded of them.

    Raises:
        ConfigError: no such preset, or the default one would go.
    """
    with edit_bundle(path) as edit:
        presets = dict(edit.manifest.presets)
        for name in (*([default] if default is not None else []), *remove):
            edit.manifest.preset(name)
        chosen = default or edit.manifest.default_preset
        if chosen in remove:
            raise ConfigError(
                f"{chosen} is the default; choose another one with --default before it goes", code="E-preset-default"
            )
        kept = {name: preset for name, preset in presets.items() if name not in remove}
        edit.manifest = edit.manifest.model_copy(update={"presets": kept, "default_preset": chosen})
        if remove:
            edit.record(remove)


def show(path: Path, *, as_json: bool) -> None:
    """List them with what a decision costs."""
    manifest = Bundle.open(path, verify=False).manifest
    costs = costs_of(manifest)
    if as_json:
        presets = {
            name: {**preset.model_dump(mode="json"), **costs[name]} for name, preset in sorted(manifest.presets.items())
        }
        emit_json({"bundle": manifest.name, "default_preset": manifest.default_preset, "presets": presets})
        return
    preset_table(manifest, costs)
    say(PRESET_NOTE)


def costs_of(manifest: Manifest) -> dict[str, dict[str, int]]:
    """UNet calls of each preset: rows, votes, probes, and all of them for one decision."""
    planner = manifest.planner()
    costs = {}
    for name, preset in manifest.presets.items():
        probe = planner.probe(preset)
        costs[name] = {
            "rows": planner.plan(preset).unet_calls,
            "votes": preset.votes.count,
            "probes": probe.unet_calls if probe is not None else 0,
            "unet_calls": planner.unet_calls(preset),
        }
    return costs


def preset_table(manifest: Manifest, costs: dict[str, dict[str, int]]) -> None:
    """The presets of a bundle as a table."""
    table(
        ("preset", "method", "UNet calls", "description"),
        (
            (
                name + (" *" if name == manifest.default_preset else ""),
                preset.method.method + (" + SSNI" if preset.ssni is not None else ""),
                _calls(costs[name]),
                _described(preset),
            )
            for name, preset in sorted(manifest.presets.items())
        ),
        right=("UNet calls",),
    )


def _described(preset: Preset) -> str:
    rule = f"{preset.votes.rule} of {preset.votes.count}" if preset.votes.count > 1 else ""
    return "; ".join(filter(None, (preset.description, rule))) or "-"


def _calls(cost: dict[str, int]) -> str:
    parts = f"{cost['rows']} x {cost['votes']}" if cost["votes"] > 1 else f"{cost['rows']}"
    probes = f" + {cost['probes']}" if cost["probes"] else ""
    return f"{cost['unet_calls']} = {parts}{probes}" if cost["votes"] > 1 or probes else parts
