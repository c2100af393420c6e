"""The score-norm monitor on the command line: its options, why an image was rejected, and its counters in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .outputs import prepare_file

if TYPE_CHECKING:
    from ..purify.monitor import Monitor
    from ..purify.results import Result


def check_options(
    flag_rate: float | None, probe: bool, reject: bool, metrics: Path | None, inputs: Sequence[Path]
) -> None:
    """Raise ConfigError where an option needs another one, before anything is opened."""
    for given, option in ((probe, "--probe"), (reject, "--reject"), (metrics is not None, "--metrics")):
        if given and flag_rate is None:
            raise ConfigError(
                f"{option} needs --flag-rate, the false-positive rate of the monitor, for example 0.01",
                code="E-monitor-option",
            )
    if metrics is not None and metrics.suffix.lower() not in (".json", ".prom"):
        raise ConfigError(
            f"--metrics {metrics}: choose a name that ends in .json, or in .prom for Prometheus",
            code="E-monitor-option",
        )
    prepare_file(metrics, "--metrics", inputs)


def rejection(result: Result, flag_rate: float | None) -> str:
    """Why a flagged image got no label."""
    return (
        f"rejected: its score norm {result.score_norm:.4g} is off-distribution (p-value {result.p_value:.2g}, flagged "
        f"up to {flag_rate:g})"
    )


def write_metrics(monitor: Monitor, path: Path) -> None:
    """Write the counters, in the format that the suffix names. Raises EdgepureError if that is not possible."""
    from ..files.atomic import write_json, write_text

    if path.suffix.lower() == ".json":
        write_json(path, monitor.to_dict())
    else:
        write_text(path, monitor.prometheus())
