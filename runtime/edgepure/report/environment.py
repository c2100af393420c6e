"""What a number was measured with."""

from __future__ import annotations

import platform
from datetime import date

import numpy as np

from ..machine.packages import ENGINES, package_version
from ..machine.processor import cpu_name, usable_cores


def environment(*providers: str) -> dict[str, str]:
    """Date, machine and versions: what a timing means nothing without.

    ``providers``: those that computed, whose engines are named; none: ``cpu``.
    """
    packages = [ENGINES[provider][1] for provider in providers or ("cpu",)]
    return {
        "date": date.today().isoformat(),
        "edgepure": package_version("edgepure") or "-",
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{names[0]: package_version(*names) or "-" for names in packages},
        "device": cpu_name(),
        "cores": str(usable_cores()),
        "system": f"{platform.system()} {platform.machine()}",
    }
