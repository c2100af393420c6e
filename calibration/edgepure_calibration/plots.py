"""What all plots of calibration share: figures that become part of one HTML page, with no file beside it."""

from __future__ import annotations

import base64
import io
from typing import Any

from edgepure.errors import EdgepureError


def new_figure(width: float = 7.0, height: float = 3.6, **subplots: Any) -> tuple[Any, Any]:
    """A Matplotlib figure and its axes, ``width`` x ``height`` inches; more arguments go to ``Figure.subplots``.

    It is made without ``pyplot``, so nothing global changes, no window opens, and it is freed with its last reference.

    Raises:
        EdgepureError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise EdgepureError(
            "plots need Matplotlib, which is not installed: pip install edgepure[calibration]"
        ) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**subplots)


def figure_to_data_uri(figure: Any) -> str:
    """A Matplotlib figure as an SVG inside a data URI, for ``<img src="...">``. Equal figures give equal text."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "edgepure"}):  # otherwise the ids inside are random
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
