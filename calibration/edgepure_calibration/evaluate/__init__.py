"""Robustness evaluation: attacks through the twin, answers of the deployed engine, numbers with their protocols."""

from .accuracy import Accuracy, Footnotes, Rule
from .results import Agreement, AttackResult, Evaluated, PresetResult
from .run import evaluate
from .settings import EvaluateSettings

__all__ = [
    "Accuracy",
    "Agreement",
    "AttackResult",
    "EvaluateSettings",
    "Evaluated",
    "Footnotes",
    "PresetResult",
    "Rule",
    "evaluate",
]
