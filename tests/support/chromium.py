"""What a real browser cannot show of a page: elements that reach beyond the window or hide a part of their content."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from html import escape, unescape
from pathlib import Path

import pytest

#: Widths of a desktop's window and of a phone's, in pixels.
WIDTHS = (1280, 420)

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_PROBE = """<pre id="probe"></pre><script>
addEventListener("load", () => {
  const found = [];
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, seen = page.documentElement.clientWidth;
    for (const one of page.querySelectorAll("body *")) {
      const box = one.getBoundingClientRect(), style = frame.contentWindow.getComputedStyle(one);
      const name = `${seen}: ${one.tagName} ${one.getAttribute("class")}: ${one.textContent.slice(0, 40)}`;
      if (box.width && box.right > seen + 1) found.push(`beyond the window of ${name}`);
      if (style.overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1) found.push(`hidden at ${name}`);
    }
    if (page.documentElement.scrollWidth > seen) found.push(`beyond the window of ${seen}: text`);
    for (const words of page.querySelectorAll("svg.plot text")) {
      const box = words.getBoundingClientRect(), plot = words.ownerSVGElement.getBoundingClientRect();
      if (box.left < plot.left - 1 || box.right > plot.right + 1 || box.bottom > plot.bottom + 1)
        found.push(`outside its plot at ${seen}: ${words.textContent}`);
    }
  }
  document.getElementById("probe").textContent = JSON.stringify(found);
});
</script>"""


def overflows(page: str) -> list[str]:
    """What is cut off in a page at any of the `WIDTHS`; the test is skipped where there is no Chromium."""
    if PROGRAM is None:
        pytest.skip("needs Chromium")
    style = "border:0;height:2000px;width"
    frames = "".join(f'<iframe style="{style}:{width}px" srcdoc="{escape(page)}"></iframe>' for width in WIDTHS)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frames.html"
        file.write_text(f"<!doctype html><meta charset=utf-8>{_PROBE}{frames}", encoding="utf-8")
        done = subprocess.run(
            [
                PROGRAM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--dump-dom",
                "--window-size=1400,2000",
                f"--user-data-dir={folder}/profile",
                f"file://{file}",
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )
    answer = re.search(r'<pre id="probe">(\[.*?\])</pre>', done.stdout, re.DOTALL)
    assert answer is not None, done.stderr[-2000:]
    found: list[str] = json.loads(unescape(answer[1]))
    return found


def not_cut(page: str) -> bool:
    """Whether nothing of a page is cut off; true too where there is no Chromium to ask."""
    return PROGRAM is None or overflows(page) == []
