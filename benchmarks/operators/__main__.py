"""``python -m benchmarks.operators``: see the package's text."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edgepure.engines.kinds import KINDS
from edgepure.errors import EdgepureError

from .differences import TOLERANCE, differences


def make(folder: Path) -> None:
    """One graph a case; what cannot be exported stands in the index with its code."""
    from .cases import CASES
    from .graphs import image, made

    folder.mkdir(parents=True)
    index: list[dict[str, object]] = []
    operators: dict[str, set[str]] = {}
    for group, cases in CASES.items():
        for name, case in cases.items():
            row: dict[str, object] = {"group": group, "case": name}
            index.append(row)
            path = folder / f"{len(index)}.onnx"
            try:
                graph, (wanted,) = made([case], path)
            except EdgepureError as error:
                row["refused"] = error.code
                print(f"{group}: {name}: {error}", flush=True)
                continue
            np.save(path.with_suffix(".npy"), wanted.numpy())
            row["graph"] = path.name
            for node in graph.model.graph:
                operators.setdefault(node.op_type, set()).update(node.attributes)
    np.save(folder / "x.npy", image(3).numpy())
    found = {name: sorted(attributes) for name, attributes in sorted(operators.items())}
    (folder / "index.json").write_text(json.dumps({"cases": index, "operators": found}, indent=1))


def try_all(folder: Path, providers: list[str]) -> None:
    """The table of what differs, and of what an engine refuses."""
    index = json.loads((folder / "index.json").read_text())
    x = np.load(folder / "x.npy")
    rows = [row for row in index["cases"] if "graph" in row]
    for provider in providers:
        package = KINDS[provider].packages[0]
        same, refused, other = 0, [], []
        for row in rows:
            path, words = folder / row["graph"], f"{row['group']}: {row['case']}"
            try:
                found = differences(path, provider, x, {"y0": np.load(path.with_suffix(".npy"))})["y0"]
            except EdgepureError as error:
                refused.append(f"{words} ({error.code}: {str(error)[-200:]})")
                continue
            if found <= TOLERANCE:
                same += 1
            else:
                other.append(f"{words}: {found:.2g}")
        words = f"{same} of {len(rows)} as PyTorch, {len(refused)} refused, {len(other)} differ"
        print(f"{package} {version(package)}: {words}")
        for line in (*(f"refused: {line}" for line in refused), *(f"differs: {line}" for line in other)):
            print("  " + line, flush=True)


def main() -> None:
    """Make the graphs, or try them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operators", description="A sweep of operators.")
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    parser.add_argument("--try", type=Path, metavar="FOLDER", dest="tried")
    parser.add_argument("--providers", default="cpu,openvino", help="default: %(default)s")
    asked = parser.parse_args()
    if asked.make:
        make(asked.make)
    if asked.tried:
        try_all(asked.tried, asked.providers.split(","))


if __name__ == "__main__":
    main()
