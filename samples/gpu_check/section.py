"""Runs one section in this process: ``python -m samples.gpu_check.section NAME --file F --work DIR ...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgepure.errors import EdgepureError

from .context import CannotRunError, Context, one_line
from .sections import BY_NAME


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=BY_NAME)
    parser.add_argument("--file", type=Path, required=True, help="where the results are written after each part")
    parser.add_argument("--work", type=Path, required=True, help="exported networks and engines are kept there")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--deadline", type=float, required=True, help="time.time() at which it has to be done")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    context = Context(options.device, options.file, options.work, options.deadline, options.quick)
    section = BY_NAME[options.name]
    try:
        section(context)
    except (CannotRunError, EdgepureError, ImportError) as error:  # before its first part
        context.cannot("the rest", one_line(error))
    sys.exit(0)


if __name__ == "__main__":
    main()
