"""Every example of every help text and page is run as it stands, in a folder that holds what the examples name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cli_process import TIMEOUT

from examples import commands, examples, make_workshop

#: What no test can run, and why.
NOT_RUN = {
    "an NVIDIA GPU": r"--providers? (cpu,)?(cuda|tensorrt)|--device cuda|^edgepure build (?!.*--print-trtexec)",
    "published checkpoints": r"Standard\.pt|256x256_diffusion|edgepure \w+ cifar10\b",
    "names of the reader's own": r"\bSOURCE\b",
}
#: What takes longer than a few seconds.
SLOW = (
    r"^edgepure (export|calibrate|certify|quantize|tune|evaluate|demo)\b"
    r"|--against torch|--precision int8|--repeats 9"
)
#: What is said by the exit code, where it is not 0.
CODES = {
    "edgepure classify digits photos/ --preset uniform-ssni --flag-rate 0.01 --reject": (0, 4),
}


def reason(command: str) -> str | None:
    """Why a command is not run; None: it is."""
    return next((why for why, pattern in NOT_RUN.items() if re.search(pattern, command)), None)


def groups(*, slow: bool) -> list[Any]:
    """The commands of each place that are run, in order: later ones may need what earlier ones made."""
    places: dict[str, list[str]] = {}
    chosen = []
    for example in examples().values():
        if reason(example.command) is None:
            places.setdefault(example.place, []).append(example.command)
    for place, found in places.items():
        heavy = any(re.search(SLOW, command) for command in found)
        if heavy == slow:
            chosen.append(pytest.param(found, id=place.replace(" ", "_")))
    return chosen


def run_all(lines: list[str], folder: Path) -> None:
    env = make_workshop(folder)
    missing: set[str] = set()
    for line in lines:
        precision = re.search(r"--precision (\w+)", line)
        quantizes = line.startswith("edgepure quantize")
        if precision is not None and precision[1] in missing and not quantizes:
            continue  # it needs the variant that was slower here
        if line.startswith("edgepure serve"):
            assert served(line, folder, env) == 0, line
            continue
        asked = f"{line} --json" if quantizes else line  # how a refusal is told apart
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", asked], cwd=folder, env=env, capture_output=True, text=True,
            timeout=10 * TIMEOUT,
        )  # fmt: skip
        if quantizes and done.returncode == 6 and only_slow(json.loads(done.stdout)):
            assert precision is not None
            missing.add(precision[1])
            continue
        wanted = next((codes for start, codes in CODES.items() if line.startswith(start)), (0,))
        assert done.returncode in wanted, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def only_slow(evidence: dict[str, Any]) -> bool:
    """Whether a variant was refused for its time alone, which says nothing of the example: networks of a third of a
    millisecond, on a machine that does other things too."""
    speeds, least = evidence["speed"], evidence["limits"]["speed"]
    slow = isinstance(speeds, list) and any(one["ratio"] <= least for one in speeds)
    # without an attempt: too slow as it was built, so nothing else was looked at
    return slow and all(gate["passed"] for attempt in evidence["attempts"][-1:] for gate in attempt["gates"])


def served(line: str, folder: Path, env: dict[str, str]) -> int:
    """Start a server as the example says, on ports that are free, and end it when it is ready. Its exit code."""
    free = re.sub(r" --(grpc-)?port \d+", "", line) + " --port 0 --grpc-port 0"
    with subprocess.Popen(
        f"exec {free}", shell=True, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        alarm = threading.Timer(10 * TIMEOUT, process.kill)
        alarm.start()
        for said in process.stderr:
            if '"event": "ready"' in said:
                process.terminate()
        alarm.cancel()
        return process.wait()


@pytest.mark.parametrize("lines", groups(slow=False))
def test_examples(lines: list[str], tmp_path: Path) -> None:
    run_all(lines, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif("EDGEPURE_EXAMPLES" not in os.environ, reason="takes an hour; EDGEPURE_EXAMPLES=all runs them")
@pytest.mark.parametrize("lines", groups(slow=True))
def test_examples_that_take_long(lines: list[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run_all(lines, tmp_path)


def test_commands_are_found() -> None:
    text = "Text\n\n    $ edgepure plan --method uniform \\\n        --wide   # why\n    edgepure demo\n    $ cp a b\n"
    assert commands(text) == ["edgepure plan --method uniform --wide", "edgepure demo"]
    found = examples()
    assert len(found) > 40 and {example.place for example in found.values()} >= {"README.md", "docs/cli.md"} - {
        "README.md"
    }


def test_only_its_time_excuses_a_variant() -> None:
    evidence: dict[str, Any] = {
        "speed": [{"ratio": 1.4}, {"ratio": 0.9}],
        "limits": {"speed": 1.0},
        "attempts": [{"gates": [{"passed": False}]}, {"gates": [{"passed": True}]}],
    }
    assert only_slow(evidence)
    assert only_slow({**evidence, "attempts": []})
    assert not only_slow({**evidence, "speed": [{"ratio": 1.4}]}), "it was refused for something else"
    assert not only_slow({**evidence, "speed": "not measured"})
    assert not only_slow({**evidence, "attempts": [{"gates": [{"passed": True}, {"passed": False}]}]})


def test_most_examples_are_run() -> None:
    """The list of what is not run stays short."""
    skipped = [command for command in examples() if reason(command) is not None]
    assert len(skipped) <= 28, skipped
    for why, pattern in NOT_RUN.items():
        assert any(re.search(pattern, command) for command in skipped), why
