"""Robustness evaluation: attacks through the twin, answers of the deployed engine, numbers with their protocols."""

from .protocol import Accuracy, Footnotes, Protocol, Rule
from .results import Agreement, AttackResult, Evaluation, PresetResult
from .run import evaluate
from .settings import ATTACKS, DEFAULT_ATTACKS, Settings

__all__ = [
    "ATTACKS",
    "DEFAULT_ATTACKS",
    "Accuracy",
    "Agreement",
    "AttackResult",
    "Evaluation",
    "Footnotes",
    "PresetResult",
    "Protocol",
    "Rule",
    "Settings",
    "evaluate",
]
