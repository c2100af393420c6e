"""Somebody else's package, as small as one can be: one file, and the lines of its pyproject.toml that register it."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

from cli_process import environment


def install(folder: Path, module: str, source: str, group: str, **names: str) -> dict[str, str]:
    """Put a package of one file into ``folder``, as an installer would.

    Args:
        module: name of the file and of the package.
        source: what the file says.
        group: entry-point group; ``names`` are its lines: ``greet="hello:greet"``.

    Returns:
        The environment of processes that find it. In this process, put ``folder`` on `sys.path` and empty the cache of
        `edgepure.machine.packages.extensions`.
    """
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / f"{module}.py").write_text(dedent(source), encoding="utf-8")
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in names.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    env = environment()
    return {**env, "PYTHONPATH": f"{folder}{os.pathsep}{env['PYTHONPATH']}"}
