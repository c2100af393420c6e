"""Tables of benchmarks do not mix machines, versions or days."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.models import kept_rows

HERE = {"date": "2026-11-21", "cpu": "one", "openvino": "2026.4.1"}


def test_rows_of_the_same_machine_and_day_stay(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert kept_rows(path, HERE, some=True) == {}
    path.write_text(json.dumps({"machine": HERE, "models": {"a": 1}}))
    assert kept_rows(path, HERE, some=True) == kept_rows(path, HERE, some=False) == {"a": 1}


@pytest.mark.parametrize("change", [{"date": "2026-11-22"}, {"cpu": "another"}, {"openvino": None}])
def test_others_are_not_mixed_in(tmp_path: Path, change: dict[str, str | None]) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"machine": {**HERE, **change}, "models": {"a": 1}}))
    ((key, value),) = change.items()
    with pytest.raises(SystemExit, match=rf"with {key} {value} \(now {HERE[key]}\): one table does not mix that"):
        kept_rows(path, HERE, some=True)
    assert kept_rows(path, HERE, some=False) == {}, "all are measured again"
    assert path.exists()
