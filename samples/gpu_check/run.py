"""Everything that needs a GPU, in one command: every check, then the speed table.

    python samples/gpu_check/run.py --out out/gpu_check [--quick] [--minutes N] [--only SECTION ...]

It runs what this machine has and lists what it could not run, and why. Each section has a process of its own and is
written down part by part, so whatever ends the run loses nothing. What is finished in DIR is not run again: the next
run goes on with the rest. A part that ends its process is noted, and the section goes on behind it.
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
    from edgepure.files.atomic import write_text
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


def _read(partial: Path) -> dict[str, Any]:
    """What a section has written so far."""
    try:
        found: dict[str, Any] = json.loads(partial.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is being written
        return {"results": [], "missing": []}
    return found


def _without_culprit(partial: Path, code: int) -> int:
    """Note the part that was under way when its process ended, so that the next process goes past it; how many parts
    are done now."""
    data = _read(partial)
    results = data["results"]
    if data.get("running"):
        culprit = {"part": data["running"][-1], "ok": False, "error": _how(code)}
        results = [*(r for r in results if r["part"] != culprit["part"]), culprit]
    write_text(partial, json.dumps({"results": results, "missing": data["missing"]}))
    return len(results)


def _how(code: int) -> str:
    if code >= 0:
        return f"its process ended with {code}"
    return f"its process was ended by {signal.Signals(-code).name}{' (out of memory?)' if code == -9 else ''}"


class Run:
    """The results of one folder, written after every change."""

    def __init__(self, out: Path, work: Path, device: str, quick: bool) -> None:
        self.file = out / "gpu_check.json"
        self.work, self.device, self.quick = work, device, quick
        out.mkdir(parents=True, exist_ok=True)
        self.data: dict[str, Any] = {"machine": describe(), "device": device, "quick": quick, "sections": {}}
        if self.file.is_file():
            known = json.loads(self.file.read_text(encoding="utf-8"))
            here = (device, quick, self.data["machine"]["gpus"])
            if (known["device"], known["quick"], known["machine"]["gpus"]) == here:
                self.data["sections"] = known["sections"]
            elif any(section.get("results") for section in known["sections"].values()):
                raise SystemExit(
                    f"error: {self.file} holds results of another GPU, of --quick, or of a rehearsal; "
                    "give another --out"
                )

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
                if known is None or not known.get("results"):
                    self._set(section, "could not run", reason=reason)
                continue
            print(f"{section.name}: {section.title} (about {section.minutes:g} min)", flush=True)
            self._run(section, share(section, sections[index:], end), again)
        print(f"\n{summary(self.data)}\n\nwritten to {self.file} and {self.file.with_suffix('.md')}")
        failed = [r for s in self.data["sections"].values() for r in s.get("results", []) if r.get("ok") is False]
        crashed = [s for s in self.data["sections"].values() if s["state"] == "crashed"]
        return 1 if failed or crashed else 0

    def _run(self, section: Section, end: float, again: bool) -> None:
        partial = self.work / "partial" / f"{section.name}.json"
        partial.parent.mkdir(parents=True, exist_ok=True)
        before = [] if again else self.data["sections"].get(section.name, {}).get("results", [])
        kept = [r for r in before if "error" not in r]  # what failed is tried again
        write_text(partial, json.dumps({"results": kept, "missing": []}))
        started, done = time.time(), len(kept)
        while (code := self._process(section, partial, end, started)) not in (0, None) and time.time() < end:
            known, done = done, _without_culprit(partial, code)
            if done == known:  # it does not get any further
                break
        state = "stopped" if code is None else "finished" if code == 0 else "crashed"
        found = _read(partial)
        if state == "finished" and any(m.get("later") for m in found["missing"]):
            state = "stopped"
        how = {"stopped": "the time is used up", "crashed": f"{_how(code or 0)}, see the log"}
        self._take(section, partial, state, started, how.get(state))

    def _process(self, section: Section, partial: Path, end: float, started: float) -> int | None:
        """Run the section's process to its end; its exit code, or None if it had to be stopped."""
        command = [
            sys.executable,
            "-m",
            "samples.gpu_check.section",
            section.name,
            "--file",
            str(partial),
            "--work",
            str(self.work),
            "--device",
            self.device,
            "--deadline",
            str(end),
        ]
        places = os.pathsep.join([*PLACES, os.environ.get("PYTHONPATH", "")])
        # NVML counts GPUs in the order of the bus, CUDA by speed unless it is told
        environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ, "PYTHONPATH": places}
        process = subprocess.Popen(
            [*command, *(["--quick"] if self.quick else [])], cwd=ROOT, env=environment, start_new_session=True
        )
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
        return None if stopped else process.returncode

    def _take(self, section: Section, partial: Path, state: str, started: float, reason: str | None = None) -> None:
        """What the section has written so far."""
        found = _read(partial)
        found.pop("running", None)
        values = {"date": self.data["machine"]["date"], "versions": self.data["machine"]["versions"], **found}
        seconds = round(time.time() - started, 1)
        self._set(section, state, seconds=seconds, **values, **({} if reason is None else {"reason": reason}))

    def _set(self, section: Section, state: str, **values: Any) -> None:
        self.data["sections"][section.name] = {"title": section.title, "state": state, **values}
        order = [s.name for s in SECTIONS]
        self.data["sections"] = dict(sorted(self.data["sections"].items(), key=lambda item: order.index(item[0])))
        write_text(self.file, json.dumps(self.data, indent=1) + "\n")
        write_text(self.file.with_suffix(".md"), markdown(self.data))


if __name__ == "__main__":
    sys.exit(main())
