"""``python -m edgepure`` is the command ``edgepure``."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
