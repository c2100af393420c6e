"""Which package Python imports, and its version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepure.machine.packages import installed_package, package_version


def test_the_first_package_that_is_installed_counts() -> None:
    assert package_version("no-such-package", "numpy") == np.__version__
    assert package_version("no-such-package") is None


def test_the_package_that_python_imports_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages of ONNX Runtime bring the same module; one may lie in a folder that is searched first."""
    for place, name, version in (("a", "some-engine", "1.2"), ("b", "some-engine-gpu", "1.3")):
        info = tmp_path / place / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path / place))
    assert installed_package("some-engine", "some-engine-gpu") == ("some-engine-gpu", "1.3")
    monkeypatch.syspath_prepend(str(tmp_path / "a"))
    assert installed_package("some-engine", "some-engine-gpu") == ("some-engine", "1.2")
    assert package_version("no-such-package", "some-engine-gpu") == "1.3"
