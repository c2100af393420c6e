"""Plugins of ONNX Runtime: a package with a library. What they compute is theirs; that nothing else does is ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli_process
import numpy as np
import onnxruntime
import pytest
from codes import raises_code

import edgepure
from edgepure.engines import plugin
from edgepure.engines.open import open_graph

UNET = Path(edgepure.demo_bundle()) / "unet.onnx"

pytestmark = pytest.mark.skipif(
    not hasattr(onnxruntime, "register_execution_provider_library"), reason="an ONNX Runtime that knows no plugins"
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "_registered", {})


def install(monkeypatch: pytest.MonkeyPatch, name: str, library: object = "library.so") -> None:
    """A plugin's package."""
    module = SimpleNamespace(get_ep_name=lambda: name, get_library_path=lambda: library)
    monkeypatch.setitem(sys.modules, plugin.OPENVINO.module, module)


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The real ONNX Runtime, to which its own CPU is a plugin's device; it notes what it is asked."""
    asked = SimpleNamespace(libraries=[], entries={})

    class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
        def add_session_config_entry(self, key: str, value: str) -> None:
            asked.entries[key] = value  # its own CPU and "nothing on the CPU" would contradict each other

    stand_in = SimpleNamespace(
        __version__=onnxruntime.__version__,
        SessionOptions=Options,
        InferenceSession=onnxruntime.InferenceSession,
        get_ep_devices=onnxruntime.get_ep_devices,
        register_execution_provider_library=lambda name, library: asked.libraries.append(library),
    )
    monkeypatch.setattr(plugin, "import_onnxruntime", lambda: stand_in)
    return asked


def test_a_plugin_runs_a_graph_and_leaves_nothing_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, ort: SimpleNamespace
) -> None:
    install(monkeypatch, "CPUExecutionProvider")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 1, 16, 16), np.float32), "t": np.float32([7, 90])}
    results = []
    for provider in ("cpu", "plugin-openvino", "plugin-openvino"):
        with open_graph(UNET, provider, threads=1) as engine:
            assert engine.provider == provider
            results.append(engine.run(feeds))
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, atol=1e-5)
        np.testing.assert_array_equal(results[2][name], results[1][name])
    assert ort.libraries == ["library.so"], "a library is loaded once"
    assert ort.entries["session.disable_cpu_ep_fallback"] == "1"


def test_a_plugin_without_a_device_of_its_sort(monkeypatch: pytest.MonkeyPatch, ort: SimpleNamespace) -> None:
    install(monkeypatch, "OpenVINOExecutionProvider")
    with raises_code("E-provider-inactive"):
        open_graph(UNET, "plugin-openvino", threads=1)


def test_a_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "library.so").write_bytes(b"nothing")
    install(monkeypatch, "OpenVINOExecutionProvider", str(tmp_path / "library.so"))
    with raises_code("E-provider-inactive"):
        open_graph(UNET, "plugin-openvino", threads=1)


def test_a_plugin_that_is_not_installed() -> None:
    pytest.importorskip("onnxruntime")
    with raises_code("E-provider-missing") as caught:
        open_graph(UNET, "plugin-tensorrt-rtx", threads=1)
    assert "pip install onnxruntime-ep-nv-tensorrt-rtx" in str(caught.value)


def test_the_doctor_and_the_command_know_them() -> None:
    rows = {row["name"]: row for row in cli_process.run("doctor", "--json").json["providers"]}
    assert not rows["plugin-openvino"]["works"] or rows["plugin-openvino"]["version"]
    refused = cli_process.run("classify", edgepure.demo_bundle(), "x.png", "--provider", "plugin-tensorrt-rtx")
    assert refused.code == 5, refused.stderr


def test_the_probe_tells_why(monkeypatch: pytest.MonkeyPatch, ort: SimpleNamespace) -> Any:
    install(monkeypatch, "OpenVINOExecutionProvider")
    monkeypatch.setattr(plugin.Kind, "version", lambda self: "1.8.1")
    found = plugin.probe(plugin.OPENVINO, None)  # type: ignore[arg-type]
    assert not found.works and "CPU" in found.detail
    plugin._registered.clear()
    install(monkeypatch, "CPUExecutionProvider")
    assert plugin.probe(plugin.OPENVINO, None).works  # type: ignore[arg-type]
