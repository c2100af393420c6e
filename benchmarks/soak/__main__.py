"""`python -m benchmarks.soak --minutes 60`: `edgepure serve` among faults, every answer checked.

The server is a process with two models, ``mixed`` (SSNI: plans of many lengths) and ``masked`` (the heterogeneous
method with its votes). Between one and forty clients ask at a time, over REST (JSON and binary) and gRPC, one image to
forty-eight, as numbers, pixels and files. One request in ten is bad; one in twenty has a deadline that may be too
short; from one in twenty the client goes away, in its head, in its body or while it waits. Every minute the model
``mixed`` is loaded anew while the clients ask, and every minute has one of these: nothing; a damaged bundle takes the
place of the good one, and must not be loaded; every third call of the engine throws; no file can grow; SIGSTOP for a
sixth of the minute; the engine hangs; the bundle is damaged in the files that the server has open; the processes of the
lanes are killed, one after another.

What is held, or the exit code is 1: every answer equals what was computed beforehand from the same seeds; a request
without fault is answered, or refused with 503 and Retry-After, and fails only while the engine throws, its bundle is
written to or a lane is killed; a bad one is told its code; `ready` is true, but soon not while the engine throws or
hangs or the open bundle is damaged; the server counts what the clients count; at the end of the minutes, when nobody
asks, descriptors and threads are as many as before and memory does not grow.

A minute may be shorter (``--minute 5``): the test of the soak does that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgepure
from edgepure.demo import demo_images
from edgepure.files.atomic import write_text
from edgepure.report.environment import environment

from .clients import Clients
from .requests import Known, Requests
from .server import DAMAGES, LANES, PRESETS, Served
from .watch import Watch

FAULTS = ("none", "replaced", "throw", "full disk", "stop", "hang", "written", "killed")
#: Seconds within which ready has to turn: a loaded machine may need some for a self-test.
SOON = 60.0
#: Memory may be larger by this at the end than after a third of the time.
GROWTH_SHARE, GROWTH_MIB = 1.05, 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--minute", type=float, default=60.0, help="seconds of one: shorter ones are for trying")
    parser.add_argument("--clients", type=int, default=40, help="at a time at most")
    parser.add_argument("--votes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/soak.json"))
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    about = environment()

    def keep(report: dict[str, Any]) -> None:
        write_text(asked.out, json.dumps({"machine": about, **report}, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="soak-") as work:
        report = soak(Path(work), asked.minutes, asked.minute, asked.clients, asked.votes, asked.seed, keep)
    print(json.dumps({key: report[key] for key in ("requests", "server", "ready", "complaints")}, indent=1))
    sys.exit(1 if report["complaints"] else 0)


def soak(
    work: Path,
    minutes: int,
    minute: float,
    clients: int,
    votes: int,
    seed: int,
    keep: Callable[[dict[str, Any]], object] = lambda report: None,
) -> dict[str, Any]:
    """Run it; what was asked, answered, counted, and complained of. ``keep`` is given that after every minute."""
    bundle = edgepure.demo_bundle()
    known = Known.of(bundle, demo_images().adversarial[:40], PRESETS, votes)
    served = Served(work, bundle, votes, probe=minute / 4, stale=max(minute / 6, 3.0))
    try:
        watch = Watch(served)
        crowd = Clients(served, Requests(known, seed), watch, seed, clients)
        sizes = []
        for number in range(minutes):
            began = time.monotonic()
            fault = FAULTS[number % len(FAULTS)]
            owner = threading.Thread(target=_owner, args=(served, watch, fault, number, minute))
            owner.start()
            while owner.is_alive() or time.monotonic() < began + 0.9 * minute:
                asyncio.run(crowd.ask_for(max(0.6, began + 0.9 * minute - time.monotonic())))
            owner.join()
            sizes.append(_quiet(served))
            keep(_report(minute, crowd, watch, sizes, served.counted()))
            print(f"minute {number + 1}, {fault}: {dict(crowd.counts)}, {sizes[-1]}", flush=True)
        counted = _counted(served, crowd, watch)
        watch.expect(None)
        watch.close()
        if (code := served.end()) != 0:
            watch.complain(f"the server ended with {code}")
        _flat(sizes, watch)
    finally:
        if served.process.poll() is None:
            served.stop(False)
            served.process.kill()
            served.process.wait()
    keep(report := _report(minute, crowd, watch, sizes, counted))
    return report


def _report(
    minute: float, crowd: Clients, watch: Watch, sizes: list[dict[str, float]], counted: dict[str, float]
) -> dict[str, Any]:
    return {
        "minutes": len(sizes),
        "seconds_of_a_minute": minute,
        "requests": dict(crowd.counts),
        "server": counted,
        "ready": {"looks": watch.asked, "stops_of_everything": watch.gaps},
        "sizes": sizes,
        "complaints": watch.complaints,
    }


def _owner(served: Served, watch: Watch, fault: str, number: int, minute: float) -> None:
    """One minute of the owner: a reload, then a fault."""
    time.sleep(minute / 10)
    _reload(served, watch)
    time.sleep(minute / 10)
    try:
        _FAULTS.get(fault, lambda *_: None)(served, watch, number // len(FAULTS), minute)
    finally:
        watch.expect(True)


def _reload(served: Served, watch: Watch) -> None:
    status, code = served.reload()
    if status != 200:
        watch.complain(f"a good bundle was not loaded: status {status}, {code}")


def _replaced(served: Served, watch: Watch, number: int, minute: float) -> None:
    what = DAMAGES[number % len(DAMAGES)]
    served.damage(what, in_place=False)
    status, code = served.reload()
    if status != 400 or not code.startswith("E-bundle"):
        watch.complain(f"a bundle with {what}: status {status}, {code or 'no code'}")
    time.sleep(minute / 6)  # the old one goes on
    served.mend()
    _reload(served, watch)


def _written(served: Served, watch: Watch, number: int, minute: float) -> None:
    what = DAMAGES[number % 2]  # a file that is missing or not mapped does an open bundle no harm
    watch.expect(None)
    with watch.spell("written"):
        served.damage(what, in_place=True)
        if not watch.until(False, SOON):
            watch.complain(f"the server stayed ready with {what} under it")
        time.sleep(minute / 6)
        served.mend()
        _reload(served, watch)
    if not watch.until(True, SOON):
        watch.complain(f"the server did not come back after {what} under it")


def _throw(served: Served, watch: Watch, number: int, minute: float) -> None:
    _unready(served, watch, "throw", minute)


def _hang(served: Served, watch: Watch, number: int, minute: float) -> None:
    _unready(served, watch, "hang", minute)


def _unready(served: Served, watch: Watch, word: str, minute: float) -> None:
    watch.expect(None)
    with watch.spell(word):
        served.rule(word, True)
        try:
            if not watch.until(False, SOON):
                watch.complain(f"the server stayed ready while its engine had to {word}")
            else:
                watch.expect(False)
            time.sleep(minute / 6)
        finally:
            watch.expect(None)
            served.rule(word, False)
    if not watch.until(True, SOON):
        watch.complain(f"the server did not come back after its engine had to {word}")


def _full_disk(served: Served, watch: Watch, number: int, minute: float) -> None:
    served.full_disk(True)
    try:
        _reload(served, watch)  # reads, and writes a line of the log that cannot be written
        time.sleep(minute / 6)
    finally:
        served.full_disk(False)
    lines = len(served.events())
    _reload(served, watch)
    if len(served.events()) <= lines:
        watch.complain("the log did not go on when there was room again")


def _stop(served: Served, watch: Watch, number: int, minute: float) -> None:
    watch.expect(None)
    with watch.spell("stop"):
        served.stop(True)
        time.sleep(minute / 6)
        served.stop(False)
    if not watch.until(True, SOON):
        watch.complain("the server did not come back after SIGSTOP")


def _killed(served: Served, watch: Watch, number: int, minute: float) -> None:
    """Lanes end, one after another: the others answer, and ready stays true."""
    with watch.spell("killed"):
        for victim in served.lanes():
            served.kill(victim)
            time.sleep(minute / 12)
    end = time.monotonic() + SOON
    while len(served.lanes()) < len(PRESETS) * LANES:
        if time.monotonic() > end:
            watch.complain("lanes that were killed were not started again")
            return
        time.sleep(0.1)


_FAULTS = {
    "replaced": _replaced,
    "throw": _throw,
    "full disk": _full_disk,
    "stop": _stop,
    "hang": _hang,
    "written": _written,
    "killed": _killed,
}


def _quiet(served: Served) -> dict[str, float]:
    """What the process holds when nobody asks: the smallest of a few looks, as connections take a moment to end."""
    looks = []
    for _ in range(10):
        time.sleep(0.1)
        looks.append(served.size())
    return {key: min(look[key] for look in looks) for key in looks[0]}


def _counted(served: Served, crowd: Clients, watch: Watch) -> dict[str, float]:
    """What the server counts, which has to be what the clients count; those that vanished may have been anything."""
    counted, counts = served.counted(), crowd.counts
    loose = counts["vanished"] + counts["while the server was stopped"]
    for outcome in ("answered", "refused", "failed"):
        if not 0 <= counted.get(outcome, 0) - counts[outcome] <= loose:
            watch.complain(f"the server counts {counted.get(outcome, 0):.0f} {outcome}, the clients {counts[outcome]}")
    return counted


def _flat(sizes: list[dict[str, float]], watch: Watch) -> None:
    """Complain if the last third of the minutes holds more than the one before."""
    third = max(1, len(sizes) // 3)
    before, after = sizes[third : 2 * third] or sizes[:1], sizes[-third:]
    middle = {key: float(np.median([size[key] for size in before])) for key in sizes[0]}
    last = {key: float(np.median([size[key] for size in after])) for key in sizes[0]}
    if last["mib"] > GROWTH_SHARE * middle["mib"] + GROWTH_MIB:
        watch.complain(f"memory grew from {middle['mib']:.0f} to {last['mib']:.0f} MiB")
    for key in ("descriptors", "threads"):
        if last[key] > middle[key] + 2:
            watch.complain(f"{key} grew from {middle[key]:.0f} to {last[key]:.0f}")


if __name__ == "__main__":
    main()
