"""Every engine has a name for people, and a version where it is installed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from edgepure import versions
from edgepure.engines import PROVIDERS
from edgepure.versions import ENGINES, engine_words, package_version


def test_every_provider_has_an_engine() -> None:
    assert set(ENGINES) == set(PROVIDERS)


def test_the_first_package_that_is_installed_counts() -> None:
    assert package_version("no-such-package", "numpy") == np.__version__
    assert package_version("no-such-package") is None


def test_an_engine_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_words("cpu") == engine_words("cuda") == f"ONNX Runtime {onnxruntime.__version__}"
    monkeypatch.setattr(versions, "package_version", lambda *names: None)
    assert engine_words("openvino") == "OpenVINO"
