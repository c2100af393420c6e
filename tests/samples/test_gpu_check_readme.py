"""The list of packages that a GPU machine without network is brought: nothing that is imported may be missing there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "samples" / "gpu_check" / "README.md"
#: What every section imports of ours.
IMPORTED = """
import json, sys
import edgepure, edgepure.cli.app, edgepure.cli.doctor, samples.gpu_check.run
edgepure.load, edgepure.Bundle, edgepure.Purifier, edgepure.doctor
known = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(name for name in known - set(sys.stdlib_module_names) if name[0] != "_")))
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_what_they_need(names: set[str]) -> set[str]:
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = normal(todo.pop())
        if name in found:
            continue
        found.add(name)
        try:
            wanted = requires(name) or []
        except PackageNotFoundError:
            continue
        todo += [re.split(r"[^\w.-]", line)[0] for line in wanted if "extra ==" not in line]
    return found


def test_what_is_imported_is_listed() -> None:
    text = README.read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| everything \| (.*) \|$", text, flags=re.MULTILINE)
    listed = {name for names in re.findall(r"`(.*?)`", row) for name in names.split()}
    found = subprocess.run([sys.executable, "-c", IMPORTED], cwd=README.parents[2], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    packages = packages_distributions()
    imported = {normal(packages[name][0]) for name in json.loads(found.stdout) if name in packages}
    assert {"numpy", "pydantic", "lazy-loader"} <= imported
    assert imported - {"edgepure"} <= with_what_they_need(listed)
    (least,) = re.findall(r"At the least it needs\n`(.*?)`", text)
    assert imported - {"edgepure"} <= with_what_they_need(set(least.split()))
