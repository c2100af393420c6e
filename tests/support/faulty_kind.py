"""A kind of inputs with every fault that a fuzzer looks for, at known numbers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from random import Random

from edgepure.errors import EdgepureError
from tools.fuzz.kind import Kind


class Faulty(Kind):
    """Odd numbers are at fault. The number is found by trying what the tool would have made of each."""

    def attempt(self, random: Random) -> None:
        value = random.random()
        number = next(n for n in range(100) if Random(f"0/faulty_kind:Faulty/{n}").random() == value)
        if number == 1:
            raise KeyError("x")
        if number == 3:
            (Path(tempfile.gettempdir()) / "stray").touch()
        if number == 5:
            os.abort()
        while number == 7:
            pass
        if number == 9:
            raise EdgepureError("two\nlines")
