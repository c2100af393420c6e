"""OpenVINO where something is wrong: graphs that it cannot run, calls that fail, a package that is not there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from cli_process import environment
from codes import raises_code
from onnx import TensorProto, helper, numpy_helper

import edgepure
from edgepure.engines import open_graph
from edgepure.engines.base import BoundCall
from edgepure.engines.openvino import OpenVinoEngine, import_openvino
from edgepure.errors import BundleError
from edgepure.types import Float32

DIGITS = edgepure.demo_bundle()
pytestmark = pytest.mark.needs("openvino")
ROWS: list[int | str] = ["batch", 4]


def written_by(call: BoundCall, x: Float32) -> Float32:
    call.inputs["x"][...] = x
    call()
    y: Float32 = call._outputs["y"]  # type: ignore[attr-defined]
    return y


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    *constants: onnx.TensorProto,
    shapes: tuple[list[int | str], list[int | str]] = (ROWS, ROWS),
) -> Path:
    """A graph from ``x`` to ``y``."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip("xy", shapes, strict=True)
    )
    graph = helper.make_graph(nodes, "graph", [x], [y], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


def integers(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


@pytest.fixture
def fragile(tmp_path: Path) -> OpenVinoEngine:
    """``y = x + sum(x)``, but the sum goes through a reshape to the shape that the first image says in two values."""
    nodes = [
        helper.make_node("Slice", ["x", "from", "to"], ["said"]),
        helper.make_node("Reshape", ["said", "two"], ["pair"]),
        helper.make_node("Cast", ["pair"], ["shape"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "shape"], ["table"]),
        helper.make_node("ReduceSum", ["table", "axes"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    constants = [integers("from", 0, 0), integers("to", 1, 2), integers("two", 2), integers("axes", 0, 1)]
    return OpenVinoEngine(save(tmp_path / "fragile.onnx", nodes, *constants), 2)


def fragile_input(batch: int, *shapes: tuple[int, int]) -> Float32:
    """Ones, whose equal parts say these shapes."""
    x = np.ones((batch, 4), np.float32)
    x[:: batch // len(shapes), :2] = shapes
    return x


@pytest.mark.parametrize("threads", [1, 2])
def test_a_call_that_fails_is_an_error(fragile: OpenVinoEngine, threads: int) -> None:
    """On one thread, OpenVINO's synchronous call would say nothing and leave the output as it was."""
    fragile._options["INFERENCE_NUM_THREADS"] = threads
    good, bad = fragile_input(4, (4, 4)), fragile_input(4, (2, 2))
    call = fragile.bound(4)
    for _ in range(2):
        np.testing.assert_array_equal(written_by(call, good), good + good.sum())
        with raises_code("E-graph-run"):
            written_by(call, bad)


def test_one_of_two_parts_fails(fragile: OpenVinoEngine) -> None:
    call = fragile.bound(8)
    good = fragile_input(8, (4, 4), (4, 4))
    for shapes in (((2, 2), (4, 4)), ((4, 4), (2, 2))):
        with raises_code("E-graph-run"):
            written_by(call, fragile_input(8, *shapes))
        np.testing.assert_array_equal(written_by(call, good), good + good[:4].sum())


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (
            RuntimeError("Exception from src/request.cpp:7:\nno thread is left\n\n"),
            BundleError,
            r"^OpenVINO cannot run the graph: no thread is left; ",
        ),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_a_part_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, fault: BaseException, error: type[BaseException], words: str
) -> None:
    """The others are waited for before the error: they write to arrays of the caller."""
    step = OpenVinoEngine(DIGITS / "step.onnx", 2)
    compiled, size = step._compiled_for(8, full=True)
    events: list[tuple[str, str]] = []

    class Watched:
        def __init__(self, name: str) -> None:
            self._name, self._real = name, compiled.create_infer_request()

        def __getattr__(self, method: str) -> Callable[..., Any]:
            def called(*arguments: Any) -> Any:
                events.append((self._name, method))
                if (self._name, method) == ("second", "start_async"):
                    raise fault
                return getattr(self._real, method)(*arguments)

            return called

    names = iter(("first", "second"))
    watching = SimpleNamespace(create_infer_request=lambda: Watched(next(names)))
    monkeypatch.setattr(step, "_compiled_for", lambda batch, full: (watching, size))
    call = step.bound(8)
    with pytest.raises(error, match=words):
        call()
    assert events.index(("first", "wait")) > events.index(("first", "start_async"))


def test_a_batch_size_that_the_graph_cannot_have(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["a"]),
        helper.make_node("ReduceSum", ["a", "axes"], ["r"], keepdims=0),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    engine = OpenVinoEngine(save(tmp_path / "thirds.onnx", nodes, integers("shape", 3, -1), integers("axes", 0, 1)), 1)
    three, two = (np.ones((batch, 4), np.float32) for batch in (3, 2))
    np.testing.assert_array_equal(engine.run({"x": three})["y"], three + 12)
    with raises_code("E-graph-run"):
        engine.run({"x": two})
    with raises_code("E-engine-compile"):
        engine.bound(2)


@pytest.mark.parametrize("batch", [2, 5])
def test_a_graph_that_cannot_be_compiled_for_any_size(tmp_path: Path, batch: int) -> None:
    """OpenVINO 2026.4 cannot with a product, a clip and a factor for each channel: how classifiers resize an image."""
    nodes = [
        helper.make_node("MatMul", ["x", "matrix"], ["product"]),
        helper.make_node("Clip", ["product", "low", "high"], ["clipped"]),
        helper.make_node("Mul", ["clipped", "factors"], ["y"]),
    ]
    generator = np.random.default_rng(0)
    arrays = {"matrix": generator.random((4, 6)), "low": 0.0, "high": 2.0, "factors": generator.random((3, 1, 1)) + 0.5}
    path = save(
        tmp_path / "resize.onnx", nodes,
        *(numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in arrays.items()),
        shapes=(["batch", 3, 4, 4], ["batch", 3, 4, 6]),
    )  # fmt: skip
    x = generator.random((batch, 3, 4, 4), dtype=np.float32)
    wanted = np.clip(x @ arrays["matrix"], 0.0, 2.0) * arrays["factors"]
    engine = OpenVinoEngine(path, 2)
    y = np.zeros((batch, 3, 4, 6), np.float32)
    engine.prepare({"x": x}, {"y": y}, full=False)()
    for found in (engine.run({"x": x})["y"], written_by(engine.bound(batch), x), y):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def no_graph(path: Path) -> Path:
    path.write_text("once upon a time\n" * 20)
    return path


def an_empty_file(path: Path) -> Path:
    path.touch()
    return path


def an_unknown_operator(path: Path) -> Path:
    return save(path, [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")])


def shapes_that_do_not_fit(path: Path) -> Path:
    return save(path, [helper.make_node("Add", ["x", "three"], ["y"])], helper.make_tensor("three", 1, [3], [1.0] * 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_graph, "can't be parsed|import of ONNX model"),  # OpenVINO 2026 | 2025
        (an_empty_file, "it has no outputs"),
        (an_unknown_operator, r"operations: com\.example\.Frobnicate"),
        (shapes_that_do_not_fit, "Add|shapes"),
    ],
)
def test_files_that_cannot_be_run(
    make: Callable[[Path], Path], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with raises_code("E-engine-refuses") as caught:
        OpenVinoEngine(make(tmp_path / "odd.onnx"), 1)
    assert re.search(words, str(caught.value))
    assert capfd.readouterr() == ("", "")


def test_fp8_is_refused() -> None:
    with raises_code("E-provider-kernels"):
        open_graph(DIGITS / "unet.onnx", "openvino", precision="fp8")


# ---- importing it ----------------------------------------------------------------------------------------------------


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with raises_code("E-package-openvino"):
        edgepure.load(DIGITS, "openvino")


def test_nothing_is_reported_about_its_use(tmp_path: Path) -> None:
    """Imported as usual, OpenVINO writes an identifier into the home directory, and sends it."""
    code = """
import pathlib, sys, numpy
from edgepure.engines.openvino import OpenVinoEngine
with OpenVinoEngine(pathlib.Path(sys.argv[1]), 1) as engine:
    engine.run({"image": numpy.zeros((1, 1, 16, 16), numpy.float32)})
print([name for name in sys.modules if name.startswith("openvino_telemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(DIGITS / "classifier.onnx")],
        env=environment(HOME=str(tmp_path)), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert list(tmp_path.iterdir()) == []


def test_what_was_imported_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, telemetry = ModuleType("openvino"), ModuleType("openvino_telemetry")
    theirs.Core = theirs.Tensor = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", theirs)
    monkeypatch.setitem(sys.modules, "openvino_telemetry", telemetry)
    assert import_openvino() is theirs
    assert sys.modules["openvino_telemetry"] is telemetry
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    assert import_openvino() is theirs
    assert "openvino_telemetry" not in sys.modules
