"""Fixtures of the calibration's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_bundle import make_tiny_bundle
from translations_once import translations_are_read_once  # noqa: F401 - for every test here


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `tiny_bundle`, shared: read it, do not change it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
