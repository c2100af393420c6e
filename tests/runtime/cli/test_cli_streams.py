"""The command line with streams that are closed or full: no traceback, the right exit code, nothing in a wrong file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from cli_process import command, environment
from PIL import Image

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(path)
    return path


def shell(streams: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command with redirections."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {streams}', "bash", *command(*arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("streams", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_take_nothing_into_files(tiny_bundle: Path, image: Path, tmp_path: Path, streams: str) -> None:
    done = shell(streams, "purify", tiny_bundle, image, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "")
    progress = ("starting the engine", "purifying 1 image")  # of what takes more than a second, as on a busy machine
    assert all(line.startswith(progress) for line in done.stderr.splitlines()), done.stderr
    with Image.open(tmp_path / "out" / "image.png") as purified:
        assert purified.size == (16, 16)


def test_closed_streams_keep_the_exit_code(tiny_bundle: Path) -> None:
    assert shell(">&- 2>&-", "classify", tiny_bundle, "nowhere.png", "--json").returncode == 4
    assert shell(">&- 2>&-", "classify", tiny_bundle).returncode == 2
    assert shell(">&-", "--help").returncode == 0


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [("plan",), ("plan", "--json"), ("--help",)])
def test_a_full_disk_behind_stdout(tiny_bundle: Path, arguments: tuple[str, ...]) -> None:
    done = shell(f"> {FULL}", *arguments, *([] if "--help" in arguments else [tiny_bundle]))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_both(tiny_bundle: Path) -> None:
    for streams in (f"> {FULL} 2>&1", f"2> {FULL}"):
        done = shell(streams, "classify", tiny_bundle, "--json")
        assert done.returncode == 2 and done.stderr == ""
