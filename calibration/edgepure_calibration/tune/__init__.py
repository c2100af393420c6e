"""The knobs of a purification set themselves: a search for presets under a budget of UNet calls or milliseconds.

`tune` is the entry point; ``edgepure tune`` calls it.
"""

from .budget import Budget, CallBudget, TimeBudget
from .result import Tuning
from .settings import OBJECTIVES, TuneSettings
from .tune import tune

__all__ = ["OBJECTIVES", "Budget", "CallBudget", "TimeBudget", "TuneSettings", "Tuning", "tune"]
