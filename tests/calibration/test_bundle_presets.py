"""Presets put into a bundle, and the records that no longer fit them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from task_bundle import make_task_bundle
from tiny_bundle import make_tiny_bundle

from edgepure import Bundle, Preset
from edgepure.bundle.edit import edit_bundle
from edgepure_calibration.bundle_presets import put_presets


def test_stale_records_go_without_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have none, and what was measured for an hour must not be lost at the end."""
    bundle = make_tiny_bundle(tmp_path / "tiny")
    before = Bundle.open(bundle).selftest().pipelines
    assert "uniform" in before and len(before) > 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    changed = Preset.parse({"method": {"method": "uniform", "t_star": 7, "steps": 2}})
    with edit_bundle(bundle) as edit:
        put_presets(edit, {"uniform": changed})
    after = Bundle.open(bundle)
    assert after.manifest.presets["uniform"] == changed
    assert set(after.selftest().pipelines) == set(before) - {"uniform"}


def test_what_a_task_made_of_a_changed_preset_is_stale_too(tmp_path: Path) -> None:
    bundle = make_task_bundle(tmp_path / "task", "segmentation")
    changed = Preset.parse({"method": {"method": "uniform", "t_star": 7, "steps": 2}})
    with edit_bundle(bundle) as edit:
        put_presets(edit, {"uniform": changed})
    after = Bundle.open(bundle).selftest().pipelines
    assert "uniform" not in after and all(set(vectors.task) == {"logits"} for vectors in after.values())
