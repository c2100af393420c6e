"""The knobs of a purification set themselves: a search for presets under a budget of UNet calls or milliseconds.

`tune` is the entry point; ``edgepure tune`` calls it. What attacks the whole defence (`WhiteBox` and its parts) needs
PyTorch, and is imported when it is asked for: a search against attacked images that are there needs none.
"""

from typing import TYPE_CHECKING, Any

from .budget import Budget, CallBudget, TimeBudget
from .candidate import Candidate
from .certified import CertifiedSettings, CertifiedTuning, tune_certified
from .certified_report import write_certified_report
from .deployed import DeployedGraphs
from .report import write_report
from .result import Tuning, score_data
from .settings import OBJECTIVES, TuneSettings
from .tune import tune

if TYPE_CHECKING:
    from .whitebox import TwinLoader, WhiteBox, describe, transfer

__all__ = [
    "OBJECTIVES",
    "Budget",
    "CallBudget",
    "Candidate",
    "CertifiedSettings",
    "CertifiedTuning",
    "DeployedGraphs",
    "TimeBudget",
    "TuneSettings",
    "Tuning",
    "TwinLoader",
    "WhiteBox",
    "describe",
    "score_data",
    "transfer",
    "tune",
    "tune_certified",
    "write_certified_report",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import whitebox

    return getattr(whitebox, name)
