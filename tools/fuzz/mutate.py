"""Damaging bytes and documents at random, as a disk, a clumsy program or an attacker would."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

#: Numbers at which programs err.
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63),
    2**64, 10**30, 10**400, 0.0, -0.0, 0.5, 1.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
TEXTS = (
    "", "x", "\0", "\n", "a\r\nb", "\x1b[2J", "\ud800", "\u202e", "é" * 300, "../../etc/passwd", "/dev/zero", "~", ".",
    "CON", "%s%n", "{0}", "None", "NaN", "1e9", "-1", "true", "a" * 5000, "weights.bin", "image", "fp32", "FP32",
    "BYTES",
)  # fmt: skip
_BYTES = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80", b"\0" * 8, b"\xff" * 9 + b"\x01")


def damaged(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """``data`` after one to eight changes; pieces of ``other`` may get in."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        place = random.randrange(len(found) + 1) if random.random() < 0.7 else random.randrange(min(len(found), 64) + 1)
        size = min(random.choice((1, 1, 2, 4, 16, 300)), len(found) - place)
        what = random.randrange(8)
        if what == 0 and place < len(found):
            found[place] ^= 1 << random.randrange(8)
        elif what == 1 and place < len(found):
            found[place] = random.randrange(256)
        elif what == 2:
            del found[place : place + size]
        elif what == 3:
            found[place:place] = found[place : place + size] * random.choice((1, 2, 50))
        elif what == 4:
            piece = random.choice(_BYTES)
            found[place : place + len(piece)] = piece
        elif what == 5:
            found[place:place] = random.randbytes(size)
        elif what == 6:
            del found[place:]
        elif other:
            start = random.randrange(len(other))
            found[place : place + size] = other[start : start + max(size, 4)]
    return bytes(found)


def changed(document: Any, random: Random) -> Any:
    """A document of JSON's types after one to four changes at random places."""
    found = copy.deepcopy(document)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        found = _change(found, random)
    return found


def _change(node: Any, random: Random) -> Any:
    if isinstance(node, dict) and node and random.random() < 0.85:
        key = random.choice(list(node))
        what = random.random()
        if what < 0.75:
            node[key] = _change(node[key], random)
        elif what < 0.83:
            del node[key]
        elif what < 0.9:
            node[random.choice((*TEXTS, *node))] = node.pop(key)
        else:
            node[random.choice((*TEXTS, key + "_"))] = copy.deepcopy(node[key])
        return node
    if isinstance(node, list) and node and random.random() < 0.85:
        place = random.randrange(len(node))
        what = random.random()
        if what < 0.7:
            node[place] = _change(node[place], random)
        elif what < 0.8:
            del node[place]
        elif what < 0.9:
            node.insert(place, copy.deepcopy(node[place]))
        else:
            node[:] = node * random.choice((2, 3, 100)) if len(node) < 100 else []
        return node
    return anything(random, node)


def anything(random: Random, node: Any = None) -> Any:
    """A value of any of JSON's types; near ``node`` where that is a number or a text."""
    what = random.randrange(9)
    if what < 2 and isinstance(node, int | float) and not isinstance(node, bool) and not abs(node) > 1e300:
        return random.choice((node + 1, node - 1, -node, node * 2, float(node), node / 3))
    if what < 2 and isinstance(node, str):
        return random.choice((node + "x", node[:-1], node.upper(), node + "\0", node * 2, [node]))
    if what < 5:
        return random.choice(NUMBERS)
    if what < 7:
        return random.choice(TEXTS)
    if what == 7:
        return random.choice((None, True, False, [], {}, [[]], [{}], {"": {}}))
    deep: Any = random.choice((0, "x"))
    for _ in range(random.choice((2, 40, 300))):
        deep = [deep] if random.random() < 0.5 else {"a": deep}
    return deep


def as_json(document: Any) -> bytes:
    """Its JSON, with what JSON proper has not (NaN, halves of surrogate pairs) as Python writes it."""
    return json.dumps(document).encode()
