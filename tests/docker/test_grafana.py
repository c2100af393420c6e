"""The dashboard asks for metrics that the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

from edgepure.serve.metrics import Metrics
from edgepure.serve.models import Models

DASHBOARD = Path(__file__).resolve().parents[2] / "docker" / "grafana.json"


def test_every_panel_asks_for_a_metric_that_exists() -> None:
    text = Metrics(Models(1.0)).text().decode()
    have = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    asked = {name for p in panels for t in p["targets"] for name in re.findall(r"(?:edgepure|process)_\w+", t["expr"])}
    assert asked and {re.sub(r"_bucket$", "", name) for name in asked} <= have
