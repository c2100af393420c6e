"""The command line. Data goes to stdout, everything else to stderr; the exit code says what went wrong.

Nothing heavy is imported before a command needs it, so that ``edgepure --help`` answers at once.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = "interrupted; nothing was left half-written"


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        from .app import app

        app(prog_name="edgepure")
    except KeyboardInterrupt:  # before or after a command ran; inside one `guard` takes it
        sys.stderr.write(f"error: {INTERRUPTED}\n")
        raise SystemExit(130) from None


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM (a container stops) unwinds like Ctrl-C, so that temporary files go away."""
    raise SystemExit(128 + number)
