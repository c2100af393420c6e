"""How much memory is left."""

from __future__ import annotations

import re
from pathlib import Path


def available_memory() -> int | None:
    """Bytes that this process can still allocate (free memory, and the limit of a container), or None if unknown."""
    limits = []
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        limits += [int(found[1]) * 1024] if found else []
    except OSError:
        pass
    try:
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        # Page cache counts as used there, but is given up on demand.
        cached = re.search(r"^file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        limits.append(int((group / "memory.max").read_text()) - used + int(cached[1] if cached else 0))
    except (OSError, ValueError):
        pass
    return min(limits) if limits else None
