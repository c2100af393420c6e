"""The server of a soak: a process, its bundle on disk, and the faults that befall it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PRESETS = {"mixed": "uniform-ssni", "masked": "heterogeneous"}
#: Processes of each.
LANES = 2
#: The one that is loaded anew, and whose bundle is damaged.
MODEL = "mixed"
#: What is done to the files of a bundle.
DAMAGES = ("weights flipped", "weights cut short", "a graph missing", "the description cut short")
ADMIN = "owner"


class Served:
    """``edgepure serve`` in a process of its own, with bundles of its own that may be damaged.

    Args:
        work: an empty folder.
        bundle: what is served, a copy under each name of `PRESETS`.
        votes: of both.
        probe, stale: seconds, as `edgepure serve` takes them.
    """

    def __init__(self, work: Path, bundle: Path, votes: int, probe: float, stale: float) -> None:
        self._work, self._good, self._rules = work, bundle, work / "rules"
        for name in PRESETS:
            shutil.copytree(bundle, work / name)
        self._rules.mkdir()
        self.log = work / "server.log"
        named = [text for name, preset in PRESETS.items() for text in ("--preset", f"{name}={preset}")]
        options = {"votes": votes, "provider": "soak", "probe": probe, "stale": stale, "timeout": 60, "threads": 1}
        options |= {"lanes": LANES}
        shown = ("--show", "probabilities", "--show", "purified")
        flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "edgepure", "serve", *(f"{name}={work / name}" for name in PRESETS)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *named, *shown, *flags, "--port", "0", "--grpc-port", "0"],
                env=self._environment(work),
                stderr=log,
                stdout=subprocess.DEVNULL,
            )
        ready = self._wait_for_log("ready", 240)
        self.host, self.port, self.grpc = "127.0.0.1", ready["port"], f"127.0.0.1:{ready['grpc_port']}"
        self.url = f"http://{self.host}:{self.port}"

    def _environment(self, work: Path) -> dict[str, str]:
        """With the engine of the soak installed beside edgepure."""
        information = work / "package" / "soak-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: soak\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("[edgepure.engines]\nsoak = benchmarks.soak.engine:KIND\n")
        path = os.pathsep.join([str(work / "package"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"EDGEPURE_SOAK": str(self._rules), "EDGEPURE_ADMIN_TOKEN": ADMIN, "PYTHONPATH": path}
        return {**os.environ, **own, "OMP_NUM_THREADS": "1"}

    def events(self) -> list[dict[str, Any]]:
        """The lines of its log; a disk that was full may have cut one."""
        lines = self.log.read_text(errors="replace").splitlines()
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def _wait_for_log(self, event: str, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            for entry in self.events():
                if entry.get("event") == event:
                    return entry
            time.sleep(0.1)
        raise SystemExit(f"the server did not start:\n{self.log.read_text()[-2000:]}")

    def lanes(self) -> list[int]:
        """The processes of all lanes of all models."""
        asked = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        return [int(number) for number in asked.stdout.split()]

    def ask(self, path: str, body: bytes | None = None, seconds: float = 120.0) -> tuple[int, bytes]:
        """Status and body, as the owner asks; 0 if there is no answer."""
        request = urllib.request.Request(self.url + path, body, {"Authorization": f"Bearer {ADMIN}"})
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def reload(self) -> tuple[int, str]:
        """Load one model anew: the status, and the code of the error if there is one."""
        status, text = self.ask(f"/v2/repository/models/{MODEL}/load", b"")
        return status, "" if status == 200 else json.loads(text or b"{}").get("code", "")

    def counted(self) -> dict[str, float]:
        """Requests by their outcome, as the server counts them."""
        found: dict[str, float] = {}
        for line in self.ask("/metrics")[1].decode().splitlines():
            if line.startswith("edgepure_requests_total{"):
                outcome = line.split('outcome="')[1].split('"')[0]
                found[outcome] = found.get(outcome, 0.0) + float(line.rsplit(" ", 1)[1])
        return found

    def size(self) -> dict[str, float]:
        """Memory (MiB), descriptors and threads of the process and of its lanes."""
        found = {"mib": 0.0, "descriptors": 0, "threads": 0}
        for process in (self.process.pid, *self.lanes()):
            proc = Path("/proc") / str(process)
            with suppress(OSError):  # of a model that is just being closed
                found["mib"] += int((proc / "statm").read_text().split()[1]) * resource.getpagesize() / 2**20
                found["descriptors"] += len(os.listdir(proc / "fd"))
                found["threads"] += len(os.listdir(proc / "task"))
        return found

    # ---- faults -----------------------------------------------------------------------------------------------------

    def damage(self, what: str, in_place: bool) -> None:
        """Damage the bundle of `MODEL`: where it lies, or in a copy that takes its place as a new bundle does."""
        folder = self._work / (MODEL if in_place else "new")
        if not in_place:
            shutil.copytree(self._good, folder)
        graph, weights, description = (folder / name for name in ("step.onnx", "weights.bin", "bundle.json"))
        if what == "weights flipped":
            with weights.open("r+b") as file:
                data = bytearray(file.read())
                data[len(data) // 3 :: 997] = bytes(byte ^ 0x41 for byte in data[len(data) // 3 :: 997])
                file.seek(0)
                file.write(data)
        elif what == "weights cut short":
            os.truncate(weights, weights.stat().st_size // 2)
        elif what == "a graph missing":
            graph.unlink()
        else:
            os.truncate(description, description.stat().st_size // 2)
        if not in_place:
            self._replace()

    def mend(self) -> None:
        """Put a good bundle in the place of the damaged one."""
        shutil.copytree(self._good, self._work / "new")
        self._replace()

    def _replace(self) -> None:
        """By renaming, as the documents tell owners to."""
        old = self._work / "old"
        (self._work / MODEL).rename(old)
        (self._work / "new").rename(self._work / MODEL)
        shutil.rmtree(old)

    def rule(self, word: str, on: bool) -> None:
        """Tell the engine to ``throw`` or to ``hang``, or not to."""
        if on:
            (self._rules / word).touch()
        else:
            (self._rules / word).unlink()

    def full_disk(self, on: bool) -> None:
        """No file of the process can grow any more."""
        hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (0 if on else hard, hard))

    def stop(self, on: bool) -> None:
        """SIGSTOP, SIGCONT."""
        self.process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def kill(self, lane: int) -> None:
        """SIGKILL for one of `lanes`."""
        with suppress(ProcessLookupError):
            os.kill(lane, signal.SIGKILL)

    def end(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)
