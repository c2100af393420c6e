"""The process that tries the inputs of one kind, and says what becomes of them."""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from random import Random

from edgepure.errors import EdgepureError

from .kind import sound
from .kinds import kind_called

#: Memory that one process may take beyond what it has when it begins, in bytes.
MEMORY = 3 << 30
#: In the file that says where the child is: the number of the present input.
PLACE = struct.Struct("<q")


def run(kind: str, seed: int, first: int, count: int, place: Path) -> None:
    """Try the inputs ``first .. first + count - 1``; every line on stdout is one fault, the last one the counts."""
    folder = Path.cwd() / "work"
    folder.mkdir()
    warnings.simplefilter("ignore")
    tried = kind_called(kind)(folder)
    watched = [folder, Path.cwd(), Path(tempfile.gettempdir())]
    before = [set(os.listdir(place)) for place in watched]
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY,) * 2)
    counts = {"taken": 0, "refused": 0}
    with open(place, "r+b", buffering=0) as said:
        for number in range(first, first + count):
            os.pwrite(said.fileno(), PLACE.pack(number), 0)
            fault = ""
            try:
                tried.attempt(Random(f"{seed}/{kind}/{number}"))
                counts["taken"] += 1
            except EdgepureError as error:
                counts["refused"] += 1
                if not sound(error):
                    fault = f"an error of ours that is no sentence: {str(error)[:200]!r}"
            except Exception:
                fault = traceback.format_exc()
            left = [sorted(set(os.listdir(place)) ^ names) for place, names in zip(watched, before, strict=True)]
            if any(left):
                fault += f"\nfiles appeared or went: {left}"
                before = [set(os.listdir(place)) for place in watched]
            if fault:
                print(json.dumps({"number": number, "fault": fault[-2500:]}), flush=True)
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    run(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
