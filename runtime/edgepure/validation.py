"""Entries of documents, one clear sentence out of a pydantic `ValidationError` (where, what was found, what was
expected), and the same for arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from numbers import Integral, Real
from os import PathLike
from types import NoneType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from .errors import ConfigError, EdgepureError

_LONGEST_VALUE = 80
#: Faults that pydantic finds and that have a code of their own: our sentence and the code, by pydantic's name.
_OWN = {
    "extra_forbidden": ("unknown key {path}: {hint}", "E-key-unknown"),
    "missing": ("the key {path} is missing", "E-key-missing"),
}


#: How a sentence names a type; others by their own name.
_TYPE_WORDS: dict[Any, str] = {
    Integral: "an integer", Real: "a number", bool: "True or False", str: "a text", Callable: "a function",
    Sequence: "a list", Iterable: "something to iterate over", NoneType: "None", PathLike: "a path",
}  # fmt: skip


def expect(**arguments: tuple[Any, ...]) -> None:
    """Raise ConfigError unless each argument, given as ``name=(value, type, ...)``, is of one of its types. True and
    False are no numbers here, and None has to be named."""
    for name, (value, *types) in arguments.items():
        known = [NoneType if kind is None else kind for kind in types]
        if not isinstance(value, tuple(known)) or (isinstance(value, bool) and bool not in known):
            words = " or ".join(_TYPE_WORDS.get(kind, kind.__name__) for kind in known)
            raise ConfigError(f"{name} is {_repr(value)}, expected {words}", code="E-config-type")


def _repr(value: object) -> str:
    return " ".join(repr(value).split())[:_LONGEST_VALUE]


class Entry(BaseModel):
    """Base of what documents hold: unknown keys, NaN and infinities are errors, and nothing changes afterwards.

    Pydantic builds its validators at first use: imports stay quick, and the list of methods may still grow by then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            fault = first_fault(error, values, type(self).model_json_schema)
            code = fault_code(error, "E-config-value")
            raise ConfigError(f"{type(self).__name__}: {fault}", code=code) from None

    # pydantic need not call it for entries inside of others, whose faults are told by their place in the whole
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def first_fault(error: ValidationError, document: Any, schema: Callable[[], dict[str, Any]]) -> str:
    """Describe the first fault.

    Args:
        error: what pydantic raised.
        document: the plain data that was validated; the path is given as it is found there.
        schema: gives the model's JSON schema, to name the keys that are known at that place; it takes a while.
    """
    fault, others = _first(error)
    loc = fault["loc"]
    more = f" (and {others} more)" if others else ""
    path = _path(loc, document)
    if fault["type"] == "extra_forbidden":
        known = sorted(_known_keys(_made(schema), loc[:-1]))
        close = get_close_matches(str(loc[-1])[:_LONGEST_VALUE], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the known keys are {', '.join(known)}"
        return _OWN["extra_forbidden"][0].format(path=path, hint=hint) + more
    if fault["type"] == "missing":
        return _OWN["missing"][0].format(path=path) + more
    message = fault["msg"]
    if fault["type"] == "value_error":
        message = message.removeprefix("Value error, ")
        # the text of one of our own validators, which already says what it found
        return f"{path}: {message}{more}" if path else f"{message}{more}"
    if fault["type"].startswith("union_tag"):
        tags = _known_tags(_made(schema), loc)
        key = str(fault["ctx"]["discriminator"]).strip("'")
        found = f"is {fault['ctx']['tag']!r}" if "tag" in fault["ctx"] else "is missing"
        return f"{path}.{key} {found}: expected one of {', '.join(sorted(tags))}{more}"
    if message.startswith("Input should be "):
        expected = "expected " + message.removeprefix("Input should be ")
    else:  # "String should match ...", "Tuple should have at least ..."
        expected = re.sub(r"^\w+ should ", "it must ", message)
    if loc and loc[-1] == "[key]":
        return f"unknown key {path}: {expected}{more}"
    return f"{path or 'the document'} is {_shown(fault['input'])}: {expected}{more}"


@lru_cache(16)
def _made(schema: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return schema()


def fault_code(error: ValidationError, otherwise: str) -> str:
    """The code of the fault that `first_fault` describes: that of the validator which found it, else ``otherwise``."""
    fault, _ = _first(error)
    found = fault.get("ctx", {}).get("error")
    return found.code if isinstance(found, EdgepureError) else _OWN.get(fault["type"], ("", otherwise))[1]


def _first(error: ValidationError) -> tuple[ErrorDetails, int]:
    """The fault to tell, and how many there are beside it."""
    faults = error.errors(include_url=False)
    # an unknown key is most often the cause of the missing one beside it
    return next((f for f in faults if f["type"] == "extra_forbidden"), faults[0]), len(faults) - 1


def _path(loc: Sequence[int | str], document: Any) -> str:
    """The dotted path in the document. pydantic's path also has names of union members, which no file contains."""
    parts: list[str] = []
    here = document
    for i, part in enumerate(loc):
        in_list = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if in_list or (isinstance(here, dict) and part in here):
            parts.append(_part(part))
            here = here[part]
        elif i == len(loc) - 1 and isinstance(here, dict) and part != "[key]":
            parts.append(_part(part))  # a missing key
    return "".join(parts).removeprefix(".")


def _part(part: int | str) -> str:
    if isinstance(part, str):
        part = part if len(part) <= _LONGEST_VALUE else part[: _LONGEST_VALUE - 3] + "..."
    if isinstance(part, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", part):
        return f".{part}"
    return f"[{json.dumps(part, ensure_ascii=False)}]"


def _known_keys(schema: dict[str, Any], loc: Sequence[int | str]) -> set[str]:
    """The keys that the schema has at a place."""
    return {key for node in _nodes(schema, loc) for key in node.get("properties", {})}


def _known_tags(schema: dict[str, Any], loc: Sequence[int | str]) -> set[str]:
    """The discriminating values of the union members at a place."""
    values = (p for node in _nodes(schema, loc) for p in node.get("properties", {}).values())
    return {str(p["const"]) for p in values if isinstance(p, dict) and "const" in p}


def _nodes(schema: dict[str, Any], loc: Sequence[int | str]) -> list[dict[str, Any]]:
    nodes = list(_expand(schema, schema, None))
    for part in loc:
        found: list[dict[str, Any]] = []
        for node in nodes:
            inner = [node.get("properties", {}).get(part), node.get("additionalProperties"), node.get("items")]
            inner += node.get("patternProperties", {}).values()
            found += [i for i in inner if isinstance(i, dict)][:1]
        if found:
            nodes = [n for f in found for n in _expand(f, schema, None)]
        elif isinstance(part, str):  # the tag of a union member
            nodes = [n for n in nodes if _has_tag(n, part)] or nodes
    return nodes


def _expand(node: dict[str, Any], schema: dict[str, Any], seen: frozenset[str] | None) -> Iterator[dict[str, Any]]:
    """Follow references and unions to plain nodes."""
    reference = node.get("$ref")
    if reference is not None:
        seen = seen or frozenset()
        if reference not in seen:
            yield from _expand(schema["$defs"][reference.rsplit("/", 1)[-1]], schema, seen | {reference})
        return
    members = node.get("anyOf") or node.get("oneOf")
    if members is None:
        yield node
        return
    for member in members:
        yield from _expand(member, schema, seen)


def _has_tag(node: dict[str, Any], tag: str) -> bool:
    return any(isinstance(p, dict) and p.get("const") == tag for p in node.get("properties", {}).values())


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
