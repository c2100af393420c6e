"""How much memory there is, and how much is left."""

from __future__ import annotations

import re
from pathlib import Path


def memory(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """Bytes of memory in all, and available; None where the system does not say. ``root``: where its files are."""
    try:
        text = (root / "proc" / "meminfo").read_text()
    except OSError:
        return None, None
    kilobytes = {name: int(count) for name, count in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    total, available = (kilobytes.get(name) for name in ("MemTotal", "MemAvailable"))
    return total and total * 1024, available and available * 1024


def resident_memory(process: int, root: Path = Path("/")) -> int | None:
    """Bytes of memory that a process holds; None if there is none, or the system does not say."""
    try:
        text = (root / "proc" / str(process) / "status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still allocate (free memory, and the limit of a container), or None if unknown."""
    limits = [memory(root)[1]]
    try:
        group = root / "sys" / "fs" / "cgroup"
        used = int((group / "memory.current").read_text())
        # Page cache counts as used there, but is given up on demand.
        cached = re.search(r"^file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        limits.append(int((group / "memory.max").read_text()) - used + int(cached[1] if cached else 0))
    except (OSError, ValueError):
        pass
    return min((limit for limit in limits if limit is not None), default=None)
