"""The camera sample: the newest frame wins, and a synthetic video is read to its end."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_process import TIMEOUT, environment

import edgepure

FOLDER = Path(__file__).resolve().parents[2] / "samples" / "camera"

pytestmark = pytest.mark.samples


@pytest.fixture(scope="module")
def newest() -> Any:
    spec = importlib.util.spec_from_file_location("newest", FOLDER / "newest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frame(number: int) -> Any:
    return np.full((2, 2, 3), number, np.uint8)


def test_the_newest_frame_wins_and_its_age_is_known(newest: Any) -> None:
    """Frames 1 to 3 come while frame 0 is worked on: 3 is the next one, and it is as old as its own reading."""
    now, go, read = [0.0], threading.Event(), threading.Event()
    numbers = iter(range(5))

    def source() -> Any:
        number = next(numbers)
        if number == 1:
            go.wait(30)
        if number == 4:
            read.set()
            return None
        now[0] = float(number)
        return frame(number)

    with newest.Newest(source, clock=lambda: now[0]) as frames:
        found = iter(frames)
        assert next(found)[0, 0, 0] == 0
        go.set()
        assert read.wait(30)
        now[0] = 10.0
        assert next(found)[0, 0, 0] == 3
        assert frames.age == 7.0
        assert list(found) == []
        assert (frames.read, frames.taken) == (4, 2)


def test_a_fault_of_the_source_comes_out_where_frames_are_asked_for(newest: Any) -> None:
    def source() -> Any:
        raise OSError("unplugged")

    with newest.Newest(source) as frames, pytest.raises(OSError, match="unplugged"):
        next(iter(frames))


def test_leaving_ends_an_endless_source(newest: Any) -> None:
    with newest.Newest(lambda: frame(1)) as frames:
        assert next(iter(frames)) is not None
    assert not frames._thread.is_alive()


def video(path: Path, images: Any) -> Path:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (128, 96))
    assert writer.isOpened()
    for image in images:
        large = np.kron(np.rint(255 * image[0]).astype(np.uint8), np.ones((6, 6), np.uint8))
        wide = np.pad(large, ((0, 0), (16, 16)))  # what the sample crops away
        writer.write(cv2.cvtColor(wide, cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


def camera(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "camera.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT)


def test_a_video_is_read_to_its_end(tmp_path: Path) -> None:
    digits = edgepure.demo_images()
    seven = digits.clean[digits.labels == 7][0]
    done = camera(video(tmp_path / "seven.avi", [seven] * 15), "--preset", "uniform")
    assert done.returncode == 0, done.stderr
    *answers, counted, last = done.stdout.strip().splitlines()
    assert answers and all(line.split()[5] == "7" for line in answers)
    assert f"{len(answers)} answers, " in counted
    held = sum("held" in line for line in answers)
    assert 0 < held == len(answers) - -(-len(answers) // 10), "every tenth of a still picture is measured"
    # By fresh noise: a clean digit is flagged now and then, and what is held keeps the flag that was measured.
    flagged = sum("FLAGGED" in line and "held" not in line for line in answers)
    assert f"{len(answers) - held} measured, {flagged} of them flagged; {held} held" in last


def test_attacked_frames_raise_the_alarm(tmp_path: Path) -> None:
    attacked = edgepure.demo_images().adversarial[:20]
    done = camera(video(tmp_path / "attacked.avi", attacked), "--preset", "uniform", "--frames", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FLAGGED") == 3
    assert "ALARM" in done.stdout


def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    for source in (tmp_path / "none.avi", "videotestsrc ! appsink"):
        done = camera(source)
        assert done.returncode == 2 and "cannot be opened" in " ".join(done.stderr.replace("│", " ").split())
