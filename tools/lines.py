"""Count lines of Python a folder, and a package beside the states in ``tools/lines.json``: ``make lines``.

Code that is not there cannot be wrong: the runtime should get new abilities without getting longer. Growth is an error
until ``--keep NAME`` writes the present numbers down, under a name that says what was bought with them.
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
    parser.add_argument("--keep", metavar="NAME", help="add the present sums to the states, under what they bought")
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
    states = json.loads(KEPT.read_text())
    if asked.keep:
        states.append({"state": asked.keep} | {name: sums[name] for name in PACKAGES})
        KEPT.write_text(json.dumps(states, indent=2) + "\n")
    print(f"\n{'state':<66} " + " ".join(f"{name:>11}" for name in PACKAGES))
    for state in [*states, {"state": "now"} | sums]:
        print(f"{state['state']:<66} " + " ".join(f"{state[name]:>11}" for name in PACKAGES))
    if sums["runtime"] > states[-1]["runtime"]:
        print("the runtime has grown: what can go?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
