"""Is this a Jetson, and which? Read from files of the system; works inside a container that has them mounted."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: JetPack by the first number of its L4T (Linux for Tegra) release.
JETPACK = {35: 5, 36: 6, 38: 7, 39: 7}


@dataclass(frozen=True)
class Jetson:
    """A Jetson module.

    Attributes:
        l4t: release of its system, ``36.4.3``; empty where the container does not have the file.
        model: ``NVIDIA Jetson Orin Nano Developer Kit``; None if unknown.
        power_mode: as ``nvpmodel -q`` says it, ``MAXN``; None where it cannot be asked. It decides the clocks.
    """

    l4t: str
    model: str | None = None
    power_mode: str | None = None

    @property
    def jetpack(self) -> int | None:
        """Major version of JetPack; None if the L4T release is unknown."""
        return JETPACK.get(int(self.l4t.split(".")[0])) if self.l4t else None

    def __str__(self) -> str:
        jetpack = f"JetPack {self.jetpack}" if self.jetpack is not None else "unknown JetPack"
        return f"{self.model or 'Jetson'}, L4T {self.l4t or 'unknown'} ({jetpack})"


def find(root: Path = Path("/")) -> Jetson | None:
    """The Jetson that this is, or None. ``root``: where the system's files are."""
    release = _read(root / "etc" / "nv_tegra_release")
    compatible = _read(root / "proc" / "device-tree" / "compatible") or ""
    if release is None and "nvidia,tegra" not in compatible:
        return None
    # "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ..."
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release or "")
    model = _read(root / "proc" / "device-tree" / "model")
    return Jetson(f"{found[1]}.{found[2]}" if found else "", model, _power_mode())


def _power_mode() -> str | None:
    """``nvpmodel -q`` prints "NV Power Mode: MAXN", then the number of the mode."""
    program = shutil.which("nvpmodel")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "-q"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"Power Mode:\s*(\S+)", said)
    return found[1] if found else None


def _read(path: Path) -> str | None:
    """The text of a file, without the zeros that end those of the device tree; None if it cannot be read."""
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip() or None
    except OSError:
        return None
