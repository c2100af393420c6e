"""``python -m tools.fuzz [KIND...]``: see the package's text. The exit code is 1 if anything was found."""

from __future__ import annotations

import argparse
import sys

from .kinds import KINDS
from .run import fuzz


def main() -> int:
    """Try, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=(__doc__ or "").strip())
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--inputs", type=int, default=100_000, help="of all kinds together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another one is another run (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="N", help="only input N of one kind, to see a fault again")
    asked = parser.parse_args()
    chosen = {name: KINDS[name] for name in (asked.kinds or KINDS) if name in KINDS or parser.error(f"no kind {name}")}
    shares = sum(share for _, share in chosen.values())
    faults = 0
    for name, (_, share) in chosen.items():
        first, count = (asked.only, 1) if asked.only is not None else (0, round(asked.inputs * share / shares))
        found = fuzz(name, asked.seed, first, count)
        faults += len(found.faults)
        print(
            f"{name:12} {count:7} inputs: {found.counts['taken']} taken, {found.counts['refused']} refused, "
            f"{len(found.faults)} faults",
            flush=True,
        )
        for number, fault in found.faults:
            again = f"python -m tools.fuzz {name} --seed {asked.seed} --only {number}"
            print(f"--- {again}\n{fault}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
