"""What a section of the check gets: the device, its time, and a place for its results that survives a sudden end."""

from __future__ import annotations

import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepure.atomic import write_text
from edgepure.errors import EdgepureError, ProviderError


class CannotRunError(Exception):
    """This machine lacks what a part needs; the text says what."""


@dataclass
class Context:
    """One section that runs.

    Attributes:
        device: ``cuda``, or ``cpu`` for a rehearsal of the check itself.
        file: where the results are written after each part.
        work: folder for exported networks and engines, kept between runs.
        deadline: `time.time` at which the section has to be done.
        quick: smaller sizes and fewer rounds: to see that it runs, not to be quoted.
    """

    device: str
    file: Path
    work: Path
    deadline: float
    quick: bool = False
    results: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)

    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.time()

    def record(self, part: str, values: Mapping[str, Any]) -> None:
        """Keep a result. ``ok`` among the values is a verdict; without it the values are a measurement."""
        self.results.append({"part": part, **values})
        self._write()
        said = "" if "ok" not in values else " ok" if values["ok"] else " FAILED"
        print(f"    {part}{said}  {brief(values)}", flush=True)

    def cannot(self, part: str, why: str) -> None:
        """Note what could not be run, and why."""
        self.missing.append({"part": part, "why": why})
        self._write()
        print(f"    {part}: could not run: {why}", flush=True)

    def run(self, part: str, work: Callable[[], Mapping[str, Any]], needs: float = 0.0) -> bool:
        """Do one part. Whatever it raises is written down, and the next part runs.

        Args:
            part: its name.
            work: gives the values for `record`.
            needs: seconds that it takes; with less left it is not begun.

        Returns:
            Whether it ran to its end.
        """
        if self.left() < (0.0 if self.quick else needs):
            self.cannot(part, f"the time is used up: it needs about {needs:.0f} s")
            return False
        try:
            values = work()
        except (CannotRunError, ProviderError, ImportError) as error:
            self.cannot(part, one_line(error))
            return False
        except Exception as error:  # one part must not end the others
            if not isinstance(error, EdgepureError):
                traceback.print_exc(file=sys.stderr)
            self.record(part, {"ok": False, "error": one_line(error)})
            return False
        finally:
            release_memory()
        self.record(part, values)
        return True

    def _write(self) -> None:
        write_text(self.file, json.dumps({"results": self.results, "missing": self.missing}, indent=1) + "\n")


def release_memory() -> None:
    """Give back what the last part held, on the GPU too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def one_line(error: BaseException) -> str:
    """An error as one line of a table."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:500] if isinstance(error, (EdgepureError, CannotRunError)) else (
        f"{type(error).__name__}: {text}"[:500])  # fmt: skip


def brief(values: Mapping[str, Any]) -> str:
    """The numbers of a result on one line."""
    shown = []
    for name, value in values.items():
        if name == "ok" or isinstance(value, (dict, list, tuple)) or value is None:
            continue
        shown.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(shown)
