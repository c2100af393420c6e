"""What the options of ``edgepure export`` say, read and checked before PyTorch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepure.errors import ConfigError, words_of

if TYPE_CHECKING:
    from edgepure.methods.presets import Preset

#: Images of --images that are used at most.
MOST_SAMPLES = 64


def pairs(texts: list[str] | None, option: str = "--task-output") -> dict[str, str]:
    """KEY=VALUE, several times."""
    found = [text.partition("=")[::2] for text in texts or ()]
    for text, (key, value) in zip(texts or (), found, strict=True):
        if not key or not value:
            raise ConfigError(f"{option} {text!r}: expected KEY=VALUE", code="E-option")
    return dict(found)


def numbers(texts: list[str] | None) -> dict[str, float]:
    """KEY=NUMBER of --task-set."""
    try:
        return {key: float(value) for key, value in pairs(texts, "--task-set").items()}
    except ValueError as error:
        raise ConfigError(f"--task-set: expected a number ({words_of(error)})", code="E-option") from None


def published_presets(names: list[str], changes: list[str]) -> dict[str, Preset]:
    """Published presets with --set: statistics go to every preset that needs them, other changes to a single one."""
    from edgepure.cli.presets import apply_changes, parse_preset
    from edgepure.methods.published import STATISTICS, choose, published_preset

    if changes and not names:
        raise ConfigError("--set changes a preset with published settings; name one with --preset", code="E-set-preset")
    known = {f"ssni.{name}" for group in STATISTICS.values() for name in group}
    statistics, others = {}, []
    for change in changes:
        key, _, text = change.partition("=")
        if key not in known:
            others.append(change)
            continue
        try:
            statistics[key.removeprefix("ssni.")] = float(text)
        except ValueError:
            raise ConfigError(f"--set {change!r}: expected a number", code="E-set-number") from None
    presets = choose(names, statistics)
    if not others:
        return presets
    if len(names) != 1:
        raise ConfigError(
            f"--set {others[0]!r} and {len(names)} presets: which one is meant? Give one", code="E-set-presets"
        )
    name = names[0]
    return {name: parse_preset(apply_changes(published_preset(name).data(statistics), others), f"preset {name!r}")}


def mask_input_of(given: str | None, names: list[str]) -> str:
    from edgepure.methods.published import mask_input

    if given not in (None, "own", "official"):
        raise ConfigError(f"--mask-input {given!r} is unknown; choose own or official", code="E-mask-input-option")
    return given or mask_input(names)


def names_of(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ConfigError(f"{text!r}: expected names separated by commas", code="E-option")
    return names


def class_names(text: str | None) -> tuple[str, ...] | None:
    """Names separated by commas, or the lines of a text file."""
    if text is None or not Path(text).is_file():
        return names_of(text)
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"class names {text} cannot be read: {words_of(error)}; "
            "give a text file with one name a line, or the names with commas",
            code="E-classes-file",
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def read_presets(path: Path | None) -> dict[str, Preset] | None:
    from edgepure.cli.presets import parse_preset, read_json

    if path is None:
        return None
    data = read_json(path, "presets")
    if not isinstance(data, dict) or not data:
        raise ConfigError(
            f"presets file {path}: expected an object with a preset under each name", code="E-presets-file"
        )
    return {name: parse_preset(preset, f"presets file {path}, preset {name!r}") for name, preset in data.items()}


def read_images(path: Path | None, shape: tuple[int, int, int]) -> Any:
    if path is None:
        return None
    from edgepure.cli.sources import find_sources
    from edgepure.images.load import load_images
    from edgepure.images.spec import ImageSpec

    items = [source.item for source in find_sources([path])[:MOST_SAMPLES]]
    return load_images(items, ImageSpec(channels=shape[0], height=shape[1], width=shape[2])).images
