"""Numbers as people read them: a few significant digits, and no power of ten where plain digits do."""

from __future__ import annotations

import math


def number(value: float, digits: int = 3) -> str:
    """A measured number: ``1234`` and ``0.00123`` as they are, ``1.2e-05`` where zeros would have to be counted."""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text else text


def percent(share: float, digits: int = 2) -> str:
    """A share of one in percent, without the sign: ``100``, ``2.5``, ``0.00012``."""
    value = 100.0 * share
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
