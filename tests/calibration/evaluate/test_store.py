"""What evaluations keep: several runs that share a folder use the same."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgepure_calibration.evaluate.store import Arrays, Store

WHAT = {"what": "noise seed"}


def seed(value: int) -> Arrays:
    return {"seed": np.array(value)}


@pytest.mark.parametrize("links", [True, False], ids=["", "a file system without hard links"])
def test_runs_that_begin_together_draw_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refused(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refused)
    one, other = (Store(tmp_path / "work", {"bundle": "b"}) for _ in range(2))

    def slow() -> Arrays:
        assert int(other.part(WHAT, lambda: seed(2))["seed"]) == 2
        return seed(1)

    assert int(one.part(WHAT, slow)["seed"]) == 2, "the first that was kept is that of all"
    assert int(one.part(WHAT, lambda: seed(3))["seed"]) == 2
    assert len(list((tmp_path / "work").iterdir())) == 1, "nothing else is left there"


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    store.part(WHAT, lambda: seed(1))
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"PK cut off")
    assert int(store.part(WHAT, lambda: seed(2))["seed"]) == 2
    assert int(store.part(WHAT, lambda: seed(3))["seed"]) == 2
    assert list(tmp_path.iterdir()) == [kept]
