"""Everything that needs a GPU, in one command: every check, then the speed table.

    python samples/gpu_check/run.py --out out/gpu_check [--quick] [--minutes N] [--only SECTION ...]

It runs what this machine has and lists what it could not run, and why. Each section has a process of its own and is
written down part by part, so whatever ends the run loses nothing; a section that is finished in DIR is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: The check runs from a source tree, whether edgepure is installed or not.
PLACES = [str(ROOT / part) for part in ("", "runtime", "export", "calibration", "tests")]
# The folder of this file would offer its modules under bare names.
sys.path[:] = [*PLACES, *(p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent)]

try:
    from edgepure.atomic import write_text
    from samples.gpu_check.machine import describe, lacks
    from samples.gpu_check.report import markdown, summary
    from samples.gpu_check.sections import BY_NAME, SECTIONS, Section
except ModuleNotFoundError as missing:
    raise SystemExit(f"error: {missing.name} is not installed; pip install numpy pydantic pillow rich typer") from None

#: Seconds between two looks at a section that runs.
POLL = 1.0
#: Seconds that every section gets at least, if they are left.
SHORTEST = 60.0
#: A section that is past its deadline by so many seconds is stopped.
GRACE = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 if a check failed; what could not be run is no failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("out/gpu_check"), help="gpu_check.json and gpu_check.md go there"
    )
    parser.add_argument("--work", type=Path, default=Path("out/gpu_check_work"), help="exported networks and engines")
    parser.add_argument("--quick", action="store_true", help="small sizes and batch 1: to see that it runs")
    parser.add_argument("--minutes", type=float, default=45.0, help="time for all of it")
    parser.add_argument("--only", nargs="+", choices=BY_NAME, metavar="SECTION", help=", ".join(BY_NAME))
    parser.add_argument("--again", action="store_true", help="also what is finished in --out")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal of the check itself"
    )
    options = parser.parse_args(arguments)
    run = Run(options.out, options.work.resolve(), options.device, options.quick)
    return run.all([BY_NAME[name] for name in options.only or BY_NAME], 60.0 * options.minutes, options.again)


def share(section: Section, coming: Sequence[Section], end: float) -> float:
    """When a section has to be done: it may take twice its share of the time that is left, so that the others get some.

    ``coming``: the sections that have not run yet, this one included.
    """
    now = time.time()
    fair = (end - now) * section.minutes / sum(s.minutes for s in coming)
    return min(end, now + max(2.0 * fair, SHORTEST))


class Run:
    """The results of one folder, written after every change."""

    def __init__(self, out: Path, work: Path, device: str, quick: bool) -> None:
        self.file = out / "gpu_check.json"
        self.work, self.device, self.quick = work, device, quick
        out.mkdir(parents=True, exist_ok=True)
        self.data: dict[str, Any] = {"machine": describe(), "device": device, "quick": quick, "sections": {}}
        if self.file.is_file():
            known = json.loads(self.file.read_text(encoding="utf-8"))
            if (known.get("device"), known.get("quick")) == (device, quick):
                self.data["sections"] = known["sections"]

    def all(self, sections: Sequence[Section], seconds: float, again: bool = False) -> int:
        """Run sections one after another within ``seconds``; 0, or 1 if a check failed."""
        end = time.time() + seconds
        for index, section in enumerate(sections):
            known = self.data["sections"].get(section.name)
            if known is not None and known["state"] == "finished" and not again:
                print(f"{section.name}: finished before")
                continue
            reason = lacks(section, self.device)
            if not reason and time.time() >= end:
                reason = "the time is used up"
            if reason:
                print(f"{section.name}: could not run: {reason}")
                self._set(section, "could not run", reason=reason)
                continue
            print(f"{section.name}: {section.title} (about {section.minutes:g} min)", flush=True)
            self._run(section, share(section, sections[index:], end))
        print(f"\n{summary(self.data)}\n\nwritten to {self.file} and {self.file.with_suffix('.md')}")
        failed = [r for s in self.data["sections"].values() for r in s.get("results", []) if r.get("ok") is False]
        crashed = [s for s in self.data["sections"].values() if s["state"] == "crashed"]
        return 1 if failed or crashed else 0

    def _run(self, section: Section, end: float) -> None:
        partial = self.work / "partial" / f"{section.name}.json"
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        command = [sys.executable, "-m", "samples.gpu_check.section", section.name, "--file", str(partial),
                   "--work", str(self.work), "--device", self.device, "--deadline", str(end)]  # fmt: skip
        places = os.pathsep.join([*PLACES, os.environ.get("PYTHONPATH", "")])
        started = time.time()
        process = subprocess.Popen(
            [*command, *(["--quick"] if self.quick else [])], cwd=ROOT, env={**os.environ, "PYTHONPATH": places},
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None and time.time() < end + GRACE:
                self._take(section, partial, "running", started)
                try:
                    process.wait(POLL)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            stopped = process.poll() is None
            if stopped:  # the whole group: compilers run in processes of their own
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        state = "stopped" if stopped else "finished" if process.returncode == 0 else "crashed"
        how = {"stopped": "the time is used up", "crashed": f"ended with {process.returncode}, see the log"}
        self._take(section, partial, state, started, how.get(state))

    def _take(self, section: Section, partial: Path, state: str, started: float, reason: str | None = None) -> None:
        """What the section has written so far."""
        try:
            found = json.loads(partial.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there yet
            found = {"results": [], "missing": []}
        seconds = round(time.time() - started, 1)
        self._set(section, state, seconds=seconds, **found, **({} if reason is None else {"reason": reason}))

    def _set(self, section: Section, state: str, **values: Any) -> None:
        self.data["sections"][section.name] = {"title": section.title, "state": state, **values}
        order = [s.name for s in SECTIONS]
        self.data["sections"] = dict(sorted(self.data["sections"].items(), key=lambda item: order.index(item[0])))
        write_text(self.file, json.dumps(self.data, indent=1) + "\n")
        write_text(self.file.with_suffix(".md"), markdown(self.data))


if __name__ == "__main__":
    sys.exit(main())
