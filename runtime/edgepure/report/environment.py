"""What a number was measured with."""

from __future__ import annotations

import platform
from datetime import date

import numpy as np

from ..engines.kinds import DEFAULT_PROVIDER, kind_of
from ..machine.packages import package_version
from ..machine.processor import cpu_name, usable_cores


def environment(*providers: str) -> dict[str, str]:
    """Date, machine and versions: what a timing means nothing without.

    ``providers``: those that computed, whose engines are named; none: ``cpu``.
    """
    kinds = [kind_of(provider) for provider in providers or (DEFAULT_PROVIDER,)]
    return {
        "date": date.today().isoformat(),
        "edgepure": package_version("edgepure") or "-",
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{next(iter(kind.packages), kind.title): kind.version() or "-" for kind in kinds},
        "device": cpu_name(),
        "cores": str(usable_cores()),
        "system": f"{platform.system()} {platform.machine()}",
    }
