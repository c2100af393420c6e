"""The knobs of a purification set themselves: a search for presets under a budget of UNet calls or milliseconds.

`tune` is the entry point; ``edgepure tune`` calls it.
"""

from .budget import Budget, CallBudget, TimeBudget
from .candidate import Candidate
from .deployed import DeployedGraphs
from .report import write_report
from .result import Tuning, score_data
from .settings import OBJECTIVES, TuneSettings
from .tune import tune
from .whitebox import TwinLoader, WhiteBox, describe, transfer

__all__ = [
    "OBJECTIVES",
    "Budget",
    "CallBudget",
    "Candidate",
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
    "write_report",
]
