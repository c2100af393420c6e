"""Which preset a command runs: one of the bundle, one from a JSON file, or one written on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import ConfigError, words_of
from ..methods.presets import Preset
from ..methods.registry import methods
from ..validation import fault_code, first_fault

#: Parts of a preset that a dotted key of --set may name; a key without a dot belongs to the method.
PARTS = ("method", "mask", "ssni", "votes", "tiles")


def choose_preset(
    presets: Mapping[str, Preset], default: str, name: str | None, changes: Sequence[str] = ()
) -> tuple[str, Preset]:
    """The preset ``name`` (of ``presets``, or a JSON file) with the ``--set`` changes, and what to call it.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key or a value out of range.
    """
    called = name or default
    if called in presets:
        data = presets[called].model_dump(mode="json")
    elif called.endswith(".json"):
        data = read_json(Path(called), "preset")
        called = Path(called).stem
    else:
        raise ConfigError(
            f"no preset {called!r} in this bundle; it has {', '.join(sorted(presets))} (a preset of your own goes into "
            "a file whose name ends in .json)",
            code="E-preset-unknown",
        )
    if changes:
        data = apply_changes(data, changes)
        called = f"{called} ({', '.join(changes)})"
    return called, parse_preset(data)


def method_preset(method: str, changes: Sequence[str]) -> Preset:
    """The preset that ``--method NAME --set ...`` describes. No row depends on the mask, so it need not be given."""
    if method not in methods():
        raise ConfigError(f"no method {method!r}; choose one of {', '.join(methods())}", code="E-method-unknown")
    data = apply_changes({"method": {"method": method}}, changes)
    if methods()[method].needs_mask:
        data.setdefault("mask", {"area": 0.5})
    return parse_preset(data)


def parse_preset(data: Any, what: str = "preset") -> Preset:
    """A preset from plain data; the error names the key, what came and what was expected."""
    preset: Preset = check(TypeAdapter(Preset), data, what)
    return preset


def check(adapter: TypeAdapter[Any], data: Any, what: str, code: str = "E-preset") -> Any:
    """Validate plain data, or raise ConfigError with one sentence."""
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise ConfigError(
            f"{what}: {first_fault(error, data, adapter.json_schema)}", code=fault_code(error, code)
        ) from None


def apply_changes(data: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs applied to a preset as plain data. Values are JSON, or else text."""
    result = deepcopy(dict(data))
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {change!r}: expected KEY=VALUE, for example --set t_star=100", code="E-set")
        path = key.split(".")
        if path[0] not in PARTS:
            path.insert(0, "method")
        if len(path) == 1:
            raise ConfigError(
                f"--set {change!r}: {key} has several keys; name one, for example {key}.KEY=VALUE", code="E-set"
            )
        place = result
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            if inner is None:
                inner = place[part] = {}
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {change!r}: {part} has no keys of its own", code="E-set")
            place = inner
        place[path[-1]] = _value(text)
        if path[0] == "mask" and path[-1] in ("area", "threshold"):  # one replaces the other
            place["threshold" if path[-1] == "area" else "area"] = None
        if path[:2] == ["votes", "sequential"]:  # they say how many votes there are, and how they decide
            result["votes"] = {"sequential": result["votes"]["sequential"]}
        if path == ["votes", "count"]:  # and the other way round
            place["sequential"] = None
        if path == ["mask", "source"] and place["source"] == "caller":  # which computes nothing
            place["threshold"] = place["area"] = None
    return result


def read_json(path: Path, what: str) -> Any:
    """The contents of a JSON file.

    Raises:
        ConfigError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{what} file {path} cannot be read: {error.strerror}; check the path and its permissions",
            code="E-json-file",
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{what} file {path} is not valid JSON: {words_of(error)}; correct it", code="E-json-file"
        ) from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
