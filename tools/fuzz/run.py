"""Trying inputs in processes of their own, because a hostile one may end or stop them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .child import PLACE

ROOT = Path(__file__).resolve().parents[2]
#: Seconds of processor time that one input may take, and of sleep, before it hangs.
PROCESSOR_SECONDS, SECONDS = 20.0, 300.0
#: The same for a process until its first input: it imports.
START_SECONDS = 300.0
#: A kind with so many faults is given up: they will be one and the same.
MOST_FAULTS = 25


@dataclass
class Findings:
    """What became of the inputs of one kind."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)


def fuzz(kind: str, seed: int, first: int, count: int) -> Findings:
    """Try inputs of one kind; after one that ends or stops the process, go on behind it."""
    found, end = Findings(kind), first + count
    while first < end and len(found.faults) < MOST_FAULTS:
        with tempfile.TemporaryDirectory(prefix="edgepure-fuzz-") as folder:
            first = _one_process(found, kind, seed, first, end - first, Path(folder))
    return found


def _one_process(found: Findings, kind: str, seed: int, first: int, count: int, folder: Path) -> int:
    """Gives the number of the input with which to go on."""
    place, out, log = folder / "place", folder / "out", folder / "log"
    place.write_bytes(PLACE.pack(first - 1))
    for name in ("here", "tmp"):
        (folder / name).mkdir()
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tools.fuzz.child", kind, str(seed), str(first), str(count), str(place)]
    with open(out, "wb") as stdout, open(log, "wb") as stderr:
        process = subprocess.Popen(command, cwd=folder / "here", env=env, stdout=stdout, stderr=stderr)
        stopped = _watch(process, place)
    ended = False
    for line in out.read_text(errors="replace").splitlines():
        said = json.loads(line)
        if "number" in said:
            found.faults.append((said["number"], said["fault"]))
        else:
            found.counts.update(said)
            ended = True
    if ended and process.returncode == 0:
        return first + count
    (number,) = PLACE.unpack(place.read_bytes())
    last = log.read_text(errors="replace")[-1500:]
    found.faults.append((number, f"{stopped or f'the process ended ({process.returncode})'}\n{last}"))
    return max(int(number), first) + 1


def _watch(process: subprocess.Popen[bytes], place: Path) -> str:
    """Wait for the process; stop it at an input that takes too long, and say so."""
    ticks = os.sysconf("SC_CLK_TCK")
    at, used, asleep, begins = b"", 0.0, 0.0, place.read_bytes()
    while True:
        since = time.monotonic()
        try:
            process.wait(0.2)
            return ""
        except subprocess.TimeoutExpired:
            pass
        try:
            parts = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        busy = (int(parts[11]) + int(parts[12])) / ticks
        now = place.read_bytes()
        if now != at:
            at, used, asleep = now, busy, 0.0
        elif parts[0] != "R":  # a machine that is busy with other things keeps it waiting, but not asleep
            asleep += time.monotonic() - since
        if busy - used > (START_SECONDS if now == begins else PROCESSOR_SECONDS) or asleep > SECONDS:
            process.kill()
            process.wait()
            return "it takes too long"
