"""Every lesson in samples/ runs, command by command, and prints what its README says.

``EDGEPURE_UPDATE_LESSONS=1 pytest tests/samples/test_lessons.py`` writes what they print into the READMEs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(p for p in (ROOT / "samples").glob("[0-9][0-9]_*") if p.is_dir())
#: Lessons in which PyTorch works for some seconds.
SLOW = {
    "06_export_your_own_model",
    "12_prove_parity",
    "13_evaluate",
    "18_segment",
    "19_detect",
    "21_compare_in_a_notebook",
}
#: Percentages may differ by this much: on another processor an image at the border may fall to the other side.
PERCENT_TOLERANCE = 3.0
PERCENT = re.compile(r"\d+(?:\.\d+)? %")
BLOCK = re.compile(r"^```(bash|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.samples


def commands(readme: str) -> list[tuple[str, re.Match[str] | None]]:
    """The bash blocks of a README, each with the text block that follows it at once and shows its output."""
    blocks = list(BLOCK.finditer(readme))
    found: list[tuple[str, re.Match[str] | None]] = []
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] == "bash":
            found.append((block[2], after if after is not None and after[1] == "text" else None))
    return found


def assert_same_output(found: str, shown: str) -> None:
    """The same text, and percentages that are close."""
    assert PERCENT.sub("% %", found) == PERCENT.sub("% %", shown)
    pairs = zip(PERCENT.findall(found), PERCENT.findall(shown), strict=True)
    for mine, documented in pairs:
        assert float(mine.rstrip(" %")) == pytest.approx(float(documented.rstrip(" %")), abs=PERCENT_TOLERANCE)


@pytest.mark.parametrize(
    "lesson",
    [pytest.param(p, marks=pytest.mark.slow if p.name in SLOW else (), id=p.name) for p in LESSONS],
)
def test_lesson_prints_what_its_readme_says(lesson: Path, tmp_path: Path) -> None:
    path = lesson / "README.md"
    readme = path.read_text(encoding="utf-8")
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("runtime", "export", "calibration")),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    found = commands(readme)
    assert found, "a lesson without a command teaches nothing"
    updated = readme
    for command, shown in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if shown is not None and os.environ.get("EDGEPURE_UPDATE_LESSONS") == "1":
            updated = updated.replace(shown[0], f"```text\n{done.stdout.strip()}\n```")
        elif shown is not None:
            assert_same_output(done.stdout.strip(), shown[2].strip())
    if updated != readme:
        path.write_text(updated, encoding="utf-8")


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.name)
def test_lesson_is_small_and_listed(lesson: Path) -> None:
    scripts = list(lesson.glob("*.py"))
    assert scripts
    for script in scripts:
        assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    index = (ROOT / "samples" / "README.md").read_text(encoding="utf-8")
    assert f"({lesson.name}/README.md)" in index


def test_every_command_of_a_lesson_is_run() -> None:
    """What stands at the beginning of a line is run, but for these: they do what the lesson does in Python with more
    images, need a GPU or Ray (`tests/runtime/cli/test_ray.py` runs that one), or name images of the reader's."""
    left = []
    for lesson in LESSONS:
        readme = (lesson / "README.md").read_text(encoding="utf-8")
        run = "".join(command for command, _ in commands(readme))
        left += [line for line in re.findall(r"^ *(?:\$ )?(edgepure .+)$", readme, re.MULTILINE) if line not in run]
    assert [line.split(" --")[0].split("  ")[0] for line in left] == [
        "edgepure classify digits photos/",
        "edgepure quantize out/quantized",
        "edgepure bench out/quantized",
        "edgepure build digits",
        "edgepure classify digits photos/",
        "edgepure plan digits",
        "edgepure certify digits",
        "edgepure classify digits photos/",
    ]


def test_the_notebook_holds_what_its_cells_print() -> None:
    """`test_lesson_prints_what_its_readme_says` runs the cells."""
    lesson = ROOT / "samples" / "21_compare_in_a_notebook"
    cells = json.loads((lesson / "compare.ipynb").read_text(encoding="utf-8"))["cells"]
    kept = "".join(text for cell in cells for output in cell.get("outputs", ()) for text in output["text"])
    ((_, shown),) = commands((lesson / "README.md").read_text(encoding="utf-8"))
    assert shown is not None and kept.strip() == shown[2].strip()


def test_lessons_are_numbered_without_a_gap() -> None:
    assert [p.name[:2] for p in LESSONS] == [f"{n:02d}" for n in range(1, len(LESSONS) + 1)]
