"""Runs ``edgepure`` as a user does: another process, its exit code, what it printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgepure

#: Commands that open an engine: one thread each, because tests run side by side.
_WITH_ENGINE = ("verify", "purify", "classify", "bench", "demo", "export")
#: Seconds after which a command hangs; emulated processors need more.
TIMEOUT = float(os.environ.get("EDGEPURE_TEST_TIMEOUT", "120"))


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What --json printed; anything else on stdout makes this fail."""
        return json.loads(self.stdout)

    def fails(self, code: int, *words: str) -> str:
        """Assert one clear sentence on stderr with these words, this exit code, and no traceback; give the sentence."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert self.code == code, f"exit code {self.code}, expected {code}\n{self.stdout}{self.stderr}"
        assert "Traceback" not in self.stderr
        assert len(lines) == 1, self.stderr
        for word in words:
            assert word in lines[0], f"{word!r} is not in: {lines[0]}"
        return lines[0]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a command: this edgepure, whether it is installed or not, and one thread."""
    root = Path(__file__).resolve().parents[2]
    own = [str(Path(edgepure.__file__).resolve().parents[1]), str(root / "export"), str(root / "calibration")]
    places = [*own, os.environ.get("PYTHONPATH", "")]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **changes}
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # most of such a short process would be spent on compiling NumPy again
    return found


def command(*arguments: object) -> list[str]:
    """The process's arguments."""
    texts = [str(a) for a in arguments]
    if texts and texts[0] in _WITH_ENGINE and "--help" not in texts and "--threads" not in texts:
        texts += ["--threads", "1"]
    return [sys.executable, "-m", "edgepure", *texts]


def run(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, **options: Any) -> Finished:
    """Run one command to its end."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        **options,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a command that is going to be interrupted: a shell's background job, which the tests may be part of, would
    leave it deaf to SIGINT."""
    return subprocess.Popen(
        command(*arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
