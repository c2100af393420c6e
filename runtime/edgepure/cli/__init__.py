"""The command line. Data goes to stdout, everything else to stderr; the exit code says what went wrong.

Nothing heavy is imported before a command needs it, so that ``edgepure --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType
from typing import Any, NoReturn

import lazy_loader

from ..errors import EdgepureError

# What verbs of other packages share with ours stands in __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

INTERRUPTED = "interrupted; nothing was left half-written"
#: What ends a command from outside, like Ctrl-C: a container stops, a session is closed. Exit codes are 128 + these.
ENDING = (signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Entry point of the console script."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _ended)
    _open_closed_streams()
    warnings.showwarning = _warned
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the encoding of a terminal or a file cannot say
    try:
        if sys.argv[1:] in (["-h"], ["--help"]):
            from .listing import help_page

            sys.stdout.write(help_page())
            sys.stdout.flush()
            raise SystemExit(0)
        from .app import app

        code = app(prog_name="edgepure", standalone_mode=False)
    except KeyboardInterrupt:  # before or after a command ran; inside one `guard` takes it
        sys.stderr.write(f"error: {INTERRUPTED}\n")
        raise SystemExit(130) from None
    except EdgepureError as error:  # before there was a command
        from typer import Exit

        from .guard import fail

        try:
            fail(error, as_json="--json" in sys.argv)
        except Exit as ended:
            raise SystemExit(ended.exit_code) from None
    except OSError as error:  # the help could not be printed; inside a command `guard` takes it
        with suppress(OSError):
            sys.stderr.write(f"error: {error.strerror or error}\n")
        raise SystemExit(1) from None
    except Exception as error:
        if not hasattr(error, "format_message"):  # what click and typer raise for wrong usage
            raise
        _wrong_usage(error)
    raise SystemExit(code or 0)


def _warned(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """What a library has to say, in one line, without the place in its source. Ours come once."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"note: {' '.join(str(message).split())}\n")


def _open_closed_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr were closed (``>&-``): otherwise the next file that is opened takes
    their number, and libraries that print would print into it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - as the real ones


def _wrong_usage(error: Any) -> NoReturn:
    """Options that contradict the help, in typer's words; with --json as a document, as every other error."""
    with suppress(OSError):  # nobody may be there to read it
        error.show()
    if "--json" in sys.argv:
        from .output import emit_json

        message = error.format_message()
        with suppress(OSError):
            shown = {"type": "UsageError", "code": "E-usage", "message": message, "exit_code": error.exit_code}
            emit_json({"error": shown})
    raise SystemExit(error.exit_code)


def _ended(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind as Ctrl-C does, so that temporary files go away."""
    raise SystemExit(128 + number)
