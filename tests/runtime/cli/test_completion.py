"""``edgepure --install-completion``: what it writes makes a real bash complete verbs and options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import environment

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")

#: What bash does when Tab is pressed behind these words.
TAB = """
source ~/.bashrc
COMP_WORDS=(%s); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_edgepure_completion edgepure
echo "${COMPREPLY[@]}"
"""


def bash(text: str, home: Path) -> str:
    """Run it in a shell whose PATH has ``edgepure``; gives what it printed."""
    tools = home / "tools"
    tools.mkdir(exist_ok=True)
    command = tools / "edgepure"
    command.write_text(
        f'#!{sys.executable}\nimport sys\nfrom edgepure.cli import main\nsys.argv[0] = "edgepure"\nmain()\n'
    )
    command.chmod(0o755)
    env = {**environment(), "HOME": str(home), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", f"{text}\ntrue"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_real_bash_completes(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("export KEPT=1\n")
    assert "completion installed" in bash("edgepure --install-completion; edgepure --install-completion", tmp_path)
    found = (tmp_path / ".bashrc").read_text()
    assert found.startswith("export KEPT=1\n") and found.count("edgepure.sh") == 1
    assert bash(TAB % "edgepure cl", tmp_path).split() == ["classify"]
    assert bash(TAB % "edgepure classify --vo", tmp_path).split() == ["--votes"]
