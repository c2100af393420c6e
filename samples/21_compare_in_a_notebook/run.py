"""Run the notebook beside this file without Jupyter: its cells in order, in one namespace. ``--save`` keeps what they
print in the notebook."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name("compare.ipynb")

document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
names: dict[str, Any] = {"__name__": "__main__"}
for number, cell in enumerate((c for c in document["cells"] if c["cell_type"] == "code"), start=1):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    print(said.getvalue(), end="", flush=True)
    lines = said.getvalue().splitlines(keepends=True)
    cell["execution_count"] = number
    cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
if "--save" in sys.argv:
    NOTEBOOK.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
