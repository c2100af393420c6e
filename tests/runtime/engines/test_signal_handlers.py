"""What a handler of a signal raises in the middle of a call comes out as it is."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import signal_loop

from edgepure.engines.kinds import KINDS


@pytest.mark.parametrize(
    "provider", [name for name, kind in KINDS.items() if kind.device == "cpu" and find_spec(kind.module)]
)
def test_it_is_no_fault_of_the_engine(provider: str) -> None:
    """In a process of its own: one that ends by a signal says which."""
    command = [sys.executable, signal_loop.__file__, provider]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*map(str, range(20)), "True"]
