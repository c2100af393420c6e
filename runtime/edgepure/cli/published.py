"""``edgepure presets``: the published settings, how many UNet calls they cost, and where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DebugOption, JsonOption, given

if TYPE_CHECKING:
    from ..methods.published import PublishedPreset


def presets(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|BUNDLE",
            help="Show these in full, or those of a bundle. Default: list all.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[str | None, given("NAME", "Only those for cifar10, svhn or imagenet.")] = None,
    default: Annotated[str | None, given("NAME", "With a bundle: make this its default.")] = None,
    remove: Annotated[
        list[str] | None, given("NAME", "With a bundle: take this out of it. May be given several times.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the presets with published settings, or those of a bundle; change which of them are in a bundle.

    `edgepure export --preset NAME` puts one into a bundle. Presets with SSNI need statistics of the score norms of
    clean images, which belong to one diffusion model.

    Examples:

    \b
      edgepure presets --dataset cifar10
      edgepure presets cifar10-dhni-official
      edgepure presets --json | jq '.[] | select(.unet_calls <= 10) | .name'
      edgepure presets digits
      edgepure presets digits --default uniform --remove repaint
    """
    from ..errors import ConfigError
    from ..methods.published import published, published_preset
    from .output import emit_json, say, table

    bundle = Path(names[0]) if names and len(names) == 1 and ("/" in names[0] or Path(names[0]).is_dir()) else None
    if bundle is not None:
        from .bundle_presets import change, show

        if default is not None or remove:
            change(bundle, default, remove or [])
        show(bundle, as_json=as_json)
        return
    if default is not None or remove:
        raise ConfigError("--default and --remove change a bundle; name its folder", code="E-preset-no-bundle")
    chosen = [published_preset(name) for name in names] if names else list(published().values())
    if dataset is not None:
        known = sorted({d for p in published().values() for d in p.datasets})
        if dataset not in known:
            raise ConfigError(
                f"there are no presets for {dataset!r}; there are some for {', '.join(known)}", code="E-preset-dataset"
            )
        chosen = [p for p in chosen if dataset in p.datasets]
    if as_json:
        emit_json([as_data(preset) for preset in chosen])
        return
    if names:
        for preset in chosen:
            _show(preset)
        return
    table(
        ("calls x votes", "UNet calls", "preset", "classifiers", "needs", "source"),
        (
            (calls(p), p.cost.total, p.name, ", ".join(p.classifiers) or "any", ", ".join(p.needs) or "-", p.source)
            for p in chosen
        ),
        right=("UNet calls", "calls x votes"),
    )
    say("\n'calls x votes + probes' is one decision; with SSNI at the full noise level")
    say("edge presets have not been measured on these data sets; the others have their authors' settings")


def as_data(preset: PublishedPreset) -> dict[str, Any]:
    """One preset as plain data."""
    return {
        "name": preset.name,
        "unet_calls": preset.cost.total,
        "rows": preset.cost.rows,
        "votes": preset.cost.votes,
        "probes": preset.cost.probes,
        "datasets": list(preset.datasets),
        "classifiers": list(preset.classifiers),
        "diffusion": preset.diffusion,
        "image": list(preset.image),
        "source": preset.source,
        "measured": preset.measured,
        "needs": list(preset.needs),
        "mask_input": preset.mask_input,
        "preset": dict(preset.settings),
    }


def calls(preset: PublishedPreset) -> str:
    """``100 x 20`` or ``100 x 1 + 20``."""
    cost = preset.cost
    return f"{cost.rows} x {cost.votes}" + (f" + {cost.probes}" if cost.probes else "")


def _show(preset: PublishedPreset) -> None:
    import json

    from .output import say

    say(f"{preset.name}: {preset.cost.total} UNet calls a decision = {calls(preset)}")
    classifiers = " or ".join(preset.classifiers) or "any classifier"
    say(f"  for {', '.join(preset.datasets)}, {classifiers}; {preset.diffusion}")
    say(f"  source: {preset.source}")
    if preset.needs:
        say(f"  needs {' and '.join(preset.needs)} (--set ssni.{preset.needs[0]}=...)")
    if preset.mask_input == "official":
        say("  its mask sees the image as the authors' code shows it (mask input official)")
    for part, value in preset.settings.items():
        say(f"  {part}: {json.dumps(value)}")
