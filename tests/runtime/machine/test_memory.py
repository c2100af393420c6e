"""What is read of the system's memory, and of the limit of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepure.machine.memory import available_memory, memory

MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\nHugePages_Total:       0\n"


def machine(root: Path, meminfo: str | None = MEMINFO, **group: str) -> Path:
    (root / "proc").mkdir()
    if meminfo is not None:
        (root / "proc" / "meminfo").write_text(meminfo)
    (root / "sys" / "fs" / "cgroup").mkdir(parents=True)
    for name, text in group.items():
        (root / "sys" / "fs" / "cgroup" / f"memory.{name}").write_text(text)
    return root


def test_of_the_machine(tmp_path: Path) -> None:
    root = machine(tmp_path)
    assert memory(root) == (16000 * 1024, 8000 * 1024)
    assert available_memory(root) == 8000 * 1024


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({"current": "900", "stat": "anon 1\nfile 400\n", "max": "1000"}, 500),
        ({"current": "900", "stat": "anon 1\n", "max": "1000"}, 100),
        ({"current": "900", "stat": "file 400\n", "max": "max"}, 8000 * 1024),
        ({"current": "900", "stat": "", "max": "99999999"}, 8000 * 1024),
        ({"max": "1000"}, 8000 * 1024),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path: Path, group: dict[str, str], expected: int) -> None:
    assert available_memory(machine(tmp_path, **group)) == expected


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    root = machine(tmp_path, None)
    assert memory(root) == (None, None)
    assert available_memory(root) is None
    (root / "proc" / "meminfo").write_text("MemTotal: 16000 kB\n")
    assert memory(root) == (16000 * 1024, None)
