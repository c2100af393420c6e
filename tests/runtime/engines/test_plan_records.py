"""Records of engines that somebody else wrote: one of ours is read, anything else is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgepure.engines.tensorrt.engine_files import EngineKey, Machine, read_plan

KEY = EngineKey(
    "tensorrt",
    "10.3.0",
    Machine("GPU", "8.7", "12.6", "36.4"),
    (),
    "step",
    "fp32",
    "0" * 64,
    ({"x": (1, 1, 4, 4)},),
    ("STRONGLY_TYPED", "VERSION_COMPATIBLE"),
)


def record(folder: Path, **changes: Any) -> Path:
    (folder / "step.fp32.plan").write_bytes(b"plan")
    data = {"key": {**KEY.to_dict(), **changes}, "plan": {"sha256": "0" * 64, "bytes": 4}, "seconds": 1.0}
    (folder / "step.fp32.json").write_text(json.dumps(data))
    return folder / "step.fp32.json"


def test_a_record_is_read(tmp_path: Path) -> None:
    plan = read_plan(record(tmp_path))
    assert plan is not None and plan.key == KEY and not plan.intact()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 5},
        {"provider": None},
        {"onnx_sha256": ["x"]},
        {"flags": [1]},
        {"targets": [{}]},
        {"targets": 3},
        {"machine": {}, "more": 1},
        {"machine": {"gpu": 1}},
        {"machine": []},
        {"profiles": []},
        {"profiles": [{}]},
        {"profiles": [{"x": [float("inf")]}]},
        {"profiles": [{"x": [float("nan")]}]},
        {"profiles": {"x": 1}},
    ],
    ids=str,
)
def test_a_record_of_something_else_is_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert read_plan(record(tmp_path, **changes)) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"key": ' * 100_000, "\xff", '{"key": {}, "plan": 3}'])
def test_a_record_that_is_none_of_ours_is_none(tmp_path: Path, text: str) -> None:
    path = record(tmp_path)
    path.write_bytes(text.encode("latin-1"))
    assert read_plan(path) is None
