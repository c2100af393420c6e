"""From an exception to one sentence and an exit code. No command shows a traceback unless it is asked for."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import wraps
from typing import NoReturn, ParamSpec

import typer

from ..errors import EdgepureError
from ..machine.shortage import shortage
from . import ENDING, INTERRUPTED
from .output import emit_json, note

P = ParamSpec("P")

#: What is not one of our own errors: the system (disk, memory, rights), or a defect of edgepure.
SYSTEM_ERROR = 1
_ENDED = tuple(128 + number for number in ENDING)


def guard(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command, as its loader does. Its parameters ``as_json`` and ``debug`` decide how an error is shown."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except typer.Exit:
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and error.code not in _ENDED):
                raise
            if kwargs.get("debug"):
                traceback.print_exc()
            fail(error, as_json=bool(kwargs.get("as_json")))

    return guarded


def fail(error: BaseException, *, as_json: bool) -> NoReturn:
    """Print one sentence for ``error`` to stderr (and an ``error`` object to stdout with --json), and exit."""
    if isinstance(error, BrokenPipeError):  # the reader of a pipe has gone: nobody is left to read a message
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(SYSTEM_ERROR)
    shown = describe(error)
    if as_json:
        with suppress(OSError):  # where it cannot be written (a full disk), perhaps the line on stderr can
            emit_json({"error": {"type": type(error).__name__, **asdict(shown)}})
    with suppress(OSError):
        note(f"error: {shown.message}")
    raise typer.Exit(shown.exit_code)


@dataclass(frozen=True)
class Shown:
    """What people and programs learn of an error."""

    code: str
    message: str
    exit_code: int


def describe(error: BaseException) -> Shown:
    """The sentence for a user, the code and the exit code."""
    if isinstance(error, EdgepureError):
        return Shown(error.code, str(error), error.exit_code)
    if lack := shortage(error):
        return Shown(lack.code, f"{lack}; nothing was left half-written", lack.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return Shown("E-interrupted", INTERRUPTED, 130)
    if isinstance(error, SystemExit):
        return Shown("E-interrupted", INTERRUPTED, int(error.code or 0))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Shown("E-system", f"{where}{error.strerror or error}; nothing was left half-written", SYSTEM_ERROR)
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return Shown(
        "E-defect",
        f"unexpected {type(error).__name__}: {first}; this is a defect of edgepure, please report it with the "
        "traceback that the same command shows with --debug",
        SYSTEM_ERROR,
    )
