"""What a section of the check gets: the device, its time, and a place for its results that survives a sudden end."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepure.errors import EdgepureError, ProviderError
from edgepure.files.atomic import write_text


class CannotRunError(Exception):
    """This machine lacks what a part needs; the text says what."""


@dataclass
class Context:
    """One section that runs.

    It takes up what its file holds: a part that is among the results is not done again, so a section that was ended
    goes on where it was.

    Attributes:
        device: ``cuda``, or ``cpu`` for a rehearsal of the check itself.
        file: where the results are written after each part, and which parts are under way.
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
    missing: list[dict[str, Any]] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.file.is_file():
            self.results = json.loads(self.file.read_text(encoding="utf-8"))["results"]

    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.time()

    def record(self, part: str, values: Mapping[str, Any]) -> None:
        """Keep a result. ``ok`` among the values is a verdict; without it the values are a measurement."""
        self.results = [r for r in self.results if r["part"] != part]
        self.results.append({"part": part, **values})
        self._write()
        said = "" if "ok" not in values else " ok" if values["ok"] else " FAILED"
        print(f"    {part}{said}  {brief(values)}", flush=True)

    def cannot(self, part: str, why: str, *, later: bool = False) -> None:
        """Note what could not be run, and why. ``later``: only for want of time, so another run should try."""
        self.missing.append({"part": part, "why": why, **({"later": True} if later else {})})
        self._write()
        print(f"    {part}: could not run: {why}", flush=True)

    def run(
        self, part: str, work: Callable[[], Mapping[str, Any]], needs: float = 0.0, *, always: bool = False
    ) -> bool:
        """Do one part. Whatever it raises is written down, and the next part runs.

        Args:
            part: its name.
            work: gives the values for `record`.
            needs: seconds that it takes; with less left it is not begun.
            always: also if its result is there already, because later parts need what it makes.

        Returns:
            Whether it ran to its end.
        """
        known = next((r for r in self.results if r["part"] == part), None)
        if known is not None and not always:
            return "error" not in known
        if self.left() < (0.0 if self.quick else needs):
            self.cannot(part, f"the time is used up: it needs about {needs:.0f} s", later=True)
            return False
        self.running.append(part)
        self._write()
        values: Mapping[str, Any] | None = None
        why, broken = "", False
        try:
            values = work()
        except Exception as error:  # one part must not end the others
            why, broken = one_line(error), breaks_the_gpu(error)
            if broken or not (lacking(error) or out_of_memory(error)):
                values = {"ok": False, "error": why}
                if not isinstance(error, EdgepureError):
                    traceback.print_exc(file=sys.stderr)
        finally:
            self.running.remove(part)
        if values is None:
            self.cannot(part, why)
        else:
            self.record(part, values)
        try:
            release_memory()
        except Exception:  # CUDA came to its end after the part did
            broken = True
        if broken:  # nothing works any more in this process: the next one goes on behind this part
            self._leave()
        return not why

    def _leave(self) -> None:
        self._write(running=())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    def _write(self, running: Sequence[str] | None = None) -> None:
        under_way = self.running if running is None else running
        data = {"results": self.results, "missing": self.missing, "running": under_way}
        write_text(self.file, json.dumps(data, indent=1) + "\n")


def release_memory() -> None:
    """Give back what the last part held, on the GPU too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def lacking(error: BaseException) -> bool:
    """Whether this machine lacks what a part needs. A call that CUDA or TensorRT refuses is a defect."""
    refused = ("CUDA: ", "running ", "preparing ", "loading ")
    if isinstance(error, ProviderError):
        return not str(error).startswith(refused)
    return isinstance(error, (CannotRunError, ImportError))


def out_of_memory(error: BaseException) -> bool:
    """Whether this is no defect but a machine that is too small, in the words of PyTorch, ONNX Runtime or ours."""
    said = f"{type(error).__name__} {error}".lower()
    words = r"out ?of ?memory|memory is full|not enough (gpu )?memory|failed to allocate memory"
    return isinstance(error, MemoryError) or re.search(words, said) is not None


def breaks_the_gpu(error: BaseException) -> bool:
    """Whether CUDA has come to an end in this process: after such an error every later call fails with it, too."""
    words = "illegal memory access|launch failure|misaligned address|device-side assert|illegal instruction"
    return re.search(words, str(error), re.IGNORECASE) is not None


def one_line(error: BaseException) -> str:
    """An error as one line of a table."""
    text = " ".join(str(error).split())
    return (
        (text or type(error).__name__)[:500]
        if isinstance(error, (EdgepureError, CannotRunError))
        else (f"{type(error).__name__}: {text}"[:500])
    )


def brief(values: Mapping[str, Any]) -> str:
    """The numbers of a result on one line."""
    shown = []
    for name, value in values.items():
        if name == "ok" or isinstance(value, (dict, list, tuple)) or value is None:
            continue
        shown.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(shown)
