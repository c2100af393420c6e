"""Count lines of Python a folder, beside those of the state named in ``tools/lines.json``: ``make lines``.

Code that is not there cannot be wrong: the runtime should get new abilities without getting longer. ``--keep`` writes
the present numbers down, at a release.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "tools" / "lines.json"
PACKAGES = {
    "runtime": Path("runtime/edgepure"),
    "export": Path("export/edgepure_export"),
    "calibration": Path("calibration/edgepure_calibration"),
}


def files() -> Iterator[tuple[Path, int]]:
    """Every Python file that git knows or would take, with its lines."""
    known = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in known.stdout.splitlines():
        path = ROOT / name
        if path.is_file():
            yield Path(name), len(path.read_bytes().splitlines())


def folder(path: Path) -> str:
    """The row of a file: a room of a package, or a folder beside the packages."""
    for package in PACKAGES.values():
        if path.is_relative_to(package):
            inner = path.relative_to(package).parts
            return f"{package}/{inner[0]}/" if len(inner) > 1 else f"{package}/"
    return f"{path.parts[0]}/"


def main() -> int:
    """Print the table. Exit code 1: the runtime has grown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--keep", metavar="NAME", help="write the sums down as those of this state")
    asked = parser.parse_args()
    lines, counts, longest, sums = Counter[str](), Counter[str](), dict[str, int](), Counter[str]()
    for path, count in files():
        row = folder(path)
        lines[row] += count
        counts[row] += 1
        longest[row] = max(longest.get(row, 0), count)
        sums[path.parts[0]] += count
    print(f"{'folder':<46} {'files':>6} {'lines':>7} {'longest':>8}")
    for row in sorted(lines):
        print(f"{row:<46} {counts[row]:>6} {lines[row]:>7} {longest[row]:>8}")
    if asked.keep:
        KEPT.write_text(json.dumps({"state": asked.keep} | {name: sums[name] for name in PACKAGES}, indent=2) + "\n")
    kept = json.loads(KEPT.read_text())
    print(f"\n{'package':<46} {'':>6} {'lines':>7} {'before':>8}   (before: {kept['state']})")
    for name in PACKAGES:
        print(f"{name:<46} {'':>6} {sums[name]:>7} {kept[name]:>8}")
    if sums["runtime"] > kept["runtime"]:
        print("the runtime has grown: what can go?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
