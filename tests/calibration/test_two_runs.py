"""Two commands at once on one bundle, as processes: the second is told, or both go on; nothing kept is spoilt."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cli_process
import numpy as np
import pytest

from edgepure.bundle.bundle import Bundle
from edgepure.demo import demo_bundle
from edgepure.files.locks import locked

pytest.importorskip("fcntl", reason="this system has no such locks")

IMAGES = demo_bundle().parent / "digits_images.npz"
CLEAN, ATTACKED = f"{IMAGES}:clean", f"{IMAGES}:adversarial"
#: Each command, what its work is kept in, and a file by which one knows that something is kept.
COMMANDS = {
    "quantize": (
        (
            "--precision",
            "int8",
            "--for",
            "tensorrt",
            "--data",
            CLEAN,
            "--preset",
            "uniform",
            "--max-flips",
            0.08,
            "--max-loss",
            0.08,
        ),
        ".digits.quantize-int8-tensorrt",
        "*.npz",
        "(--work)",
    ),
    "calibrate": (("--data", CLEAN), ".digits.calibrate", "*.npz", "(--work)"),
    "tune": (
        ("--data", CLEAN, "--attacked", ATTACKED, "--budget-calls", 5, "--no-whitebox", "--images", 20),
        ".digits.tune",
        "*.json",
        "(--work)",
    ),
}
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_bundle(), tmp_path / "digits"))


@pytest.fixture
def stopped() -> Iterator[Start]:
    """Starts a command and stops it as soon as it keeps something."""
    started: list[subprocess.Popen[str]] = []

    def start(place: Path, file: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            cli_process.command(*arguments),
            env=cli_process.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        until = time.monotonic() + 60
        while not any(place.glob(file)):
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_run_is_told(digits: Path, stopped: Start, command: str) -> None:
    options, name, file, option = COMMANDS[command]
    place = digits.with_name(name)
    arguments = (command, digits, *options, "--threads", "1")
    first = stopped(place, file, *arguments)
    before = {path: path.read_bytes() for path in (place, *place.rglob("*")) if path.is_file()}
    content = Bundle.open(digits).content_hash
    cli_process.run(*arguments).fails(1, "another run is at work", str(place), "wait until it has ended", option)
    assert {path: path.read_bytes() for path in (place, *place.rglob("*")) if path.is_file()} == before
    assert Bundle.open(digits).content_hash == content
    first.kill()
    first.wait()
    with locked(place, busy="a killed process holds it"):
        pass


@pytest.mark.slow
def test_evaluations_share_what_they_keep(digits: Path, stopped: Start, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    place = digits.with_name(".digits.evaluate")
    data = tmp_path / "eight.npz"
    with np.load(IMAGES) as images:
        np.savez(data, images=images["clean"][:8], labels=images["labels"][:8])
    arguments = (
        "evaluate",
        digits,
        "--data",
        data,
        "--preset",
        "uniform",
        "--attack",
        "pgd",
        "--eps",
        "0.1",
        "--steps",
        "3",
        "--eot",
        "2",
        "--worst",
        "3",
        "--batch",
        "2",
        "--no-card",
        "--threads",
        "1",
    )
    first = stopped(place, "*.npz", *arguments)
    kept = set(place.iterdir())
    second = cli_process.run(*arguments)
    assert second.code == 0, second.stderr
    assert set(place.iterdir()) > kept, "the first run still needs it"
    first.send_signal(signal.SIGCONT)
    said, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert said == second.stdout
    assert not place.exists()
