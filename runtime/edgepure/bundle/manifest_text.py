"""The text of ``bundle.json``, which may come from a stranger, as plain data: strict JSON of a bounded size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import BundleError

#: A larger ``bundle.json`` is refused before it is parsed.
MAX_MANIFEST_BYTES = 16 << 20
#: So are more values: the largest manifests have some ten thousand, class names and score norms mostly.
MAX_VALUES = 200_000


def parse_json(text: str | bytes, source: str) -> dict[str, Any]:
    """JSON without what other parsers would read differently: duplicate keys, NaN, infinities.

    Raises:
        BundleError: it is too long, no JSON, or no object.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{source} is {len(text)} bytes, a manifest may have {MAX_MANIFEST_BYTES}; it is not the manifest of an "
            "edgepure bundle",
            code="E-bundle-manifest-size",
        )

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"the key {twice[:100]!r} appears twice in one object")
        return result

    def finite(number: str) -> float:
        value = float(number)
        if value in (float("inf"), float("-inf")) or value != value:
            raise ValueError(f"the number {number} is not finite")
        return value

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        data = json.loads(decoded, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BundleError(
            f"{source} is not valid JSON ({reason}); it is damaged or was cut off: copy the bundle again, "
            "or export it again",
            code="E-bundle-manifest-json",
        ) from None
    if not isinstance(data, dict):
        raise BundleError(
            f"{source} holds a JSON {type(data).__name__}, expected an object; export the bundle again",
            code="E-bundle-manifest-json",
        )
    return data


def check_counts(data: Mapping[str, Any], source: str) -> None:
    """Refuse what has no end: pydantic collects every fault of a document before it says the first.

    Raises:
        BundleError: there are more than `MAX_VALUES` values.
    """
    left = MAX_VALUES
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left -= len(children)
        if left < 0:
            raise BundleError(
                f"{source} holds more than {MAX_VALUES} values; it is not the manifest of an edgepure bundle; "
                "give the folder that `edgepure export` wrote",
                code="E-bundle-manifest",
            )
        waiting += children
