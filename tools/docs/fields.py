"""docs/bundle-format.md: keys, types and defaults of its tables, read from the JSON schema of the manifest. What a key
means is written by hand, in the last column, and kept."""

from __future__ import annotations

import json
import re
from typing import Any

from edgepure.bundle.manifest import Manifest

from .page import Page, table

Schema = dict[str, Any]


def fill(page: Page) -> None:
    """Put the first columns of every table in."""
    schema = Manifest.model_json_schema()
    models = {"Manifest": schema, **schema["$defs"]}
    page.fill("fields", lambda name, old: fields(models[name], old))


def fields(model: Schema, old: str) -> str:
    """The table of one object; meanings are those of the old one."""
    meant = dict(re.findall(r"^\| `(\w+)` \|.*\| ((?:\\\||[^|])*) \|$", old, re.MULTILINE))
    required = model.get("required", [])
    rows = [
        (
            f"`{key}`",
            words(part),
            "required" if key in required else default(part),
            meant.get(key, "").replace("\\|", "|"),
        )
        for key, part in model["properties"].items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def default(part: Schema) -> str:
    """The default of a key, as JSON."""
    value = part.get("default")
    return "an empty object" if "default" not in part or value == {} else f"`{json.dumps(value)}`"


def words(part: Schema) -> str:
    """The type of a value with its bounds, in words."""
    if "anyOf" in part:
        options = [words(option) for option in part["anyOf"]]
        return f"{', '.join(options[:-1])} or {options[-1]}"
    if "$ref" in part or "discriminator" in part:
        return "object"
    if "const" in part:
        return f"`{json.dumps(part['const'])}`"
    if "enum" in part:
        return " or ".join(f"`{json.dumps(value)}`" for value in part["enum"])
    kind = str(part.get("type"))
    if kind == "null":
        return "null"
    if kind == "array" and "prefixItems" in part:
        return "[" + ", ".join(words(one) for one in part["prefixItems"]) + "]"
    if kind == "array":
        first, comma, rest = words(part["items"]).partition(",")
        return f"list of {_plural(first)}{comma}{rest}" + _counted(part, "Items", "")
    if kind == "string" and part.get("minLength") == 1 and "maxLength" not in part:
        return "string"
    if kind == "string":
        form = ", `YYYY-MM-DD`" if part.get("format") == "date" else ""
        form += f", matches `{part['pattern']}`" if "pattern" in part else ""
        return "string" + form + _counted(part, "Length", " characters")
    if kind == "object":
        inner = part.get("additionalProperties") or next(iter(part.get("patternProperties", {}).values()), None)
        return f"object of names to {words(inner)}" if inner else "object"
    return kind + _bounds(part)


def _plural(thing: str) -> str:
    return re.sub(r"^(string|number|integer|object)\b", r"\1s", thing)


def _counted(part: Schema, what: str, unit: str) -> str:
    low, high = part.get(f"min{what}"), part.get(f"max{what}")
    if low is None and high is None:
        return ""
    if high is None:
        return f", at least {low}{unit}"
    return f", at most {high}{unit}" if low is None else f", {low} to {high}{unit}"


def _bounds(part: Schema) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    found = [f"{sign} {part[key]:g}" for key, sign in signs.items() if key in part]
    return f" {' and '.join(found)}" if found else ""
