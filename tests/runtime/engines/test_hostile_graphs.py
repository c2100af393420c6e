"""Graphs of strangers: no engine sees an operator that ONNX does not allow, and none ends the process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_process import environment
from codes import raises_code
from onnx import TensorProto, defs, helper, numpy_helper

from edgepure.demo import demo_bundle
from edgepure.engines.kinds import KINDS
from edgepure.engines.open import open_graph
from edgepure.engines.schema import check_operators
from edgepure.errors import BundleError

ON_CPU = [name for name, kind in KINDS.items() if kind.device == "cpu" and find_spec(kind.module)]
ESCAPE = "\x1b[2J\x1b]0;owned\x07 all comparisons pass"


def graph(path: Path, *nodes: onnx.NodeProto, **constants: Any) -> Path:
    """``y`` from ``x [batch, 3, 8, 8]``."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 8, 8]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    body = helper.make_graph(list(nodes), "hostile", values[:1], values[1:], tensors)
    path.write_bytes(
        helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    )
    return path


def node(operator: str, inputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, ["y"], name="odd", **attributes)


def typed(made: onnx.NodeProto, kind: int) -> onnx.NodeProto:
    """The node, whose first attribute says that it is of another type."""
    made.attribute[0].type = kind
    return made


HOSTILE: dict[str, Callable[[], onnx.NodeProto]] = {
    "a flag that is neither 0 nor 1": lambda: node("Reshape", ["x", "shape"], allowzero=2147483647),
    "a maximum of nothing": lambda: node("Min", []),
    "a convolution of nothing": lambda: node("Conv", []),
    "an input that is left out": lambda: node("Conv", ["x", ""]),
    "too many inputs": lambda: node("Relu", ["x", "x"]),
    "an unknown attribute": lambda: node("Relu", ["x"], slope=2.0),
    "an attribute of another type": lambda: node("Softmax", ["x"], axis=1.5),
    "an attribute that says another type": lambda: typed(node("Softmax", ["x"], axis=1), 1),
    "a stride of 0": lambda: node("MaxPool", ["x"], kernel_shape=[2, 2], strides=[0, 1]),
    "a huge kernel": lambda: node("MaxPool", ["x"], kernel_shape=[2**40, 2]),
    "no groups": lambda: node("Conv", ["x", "w"], group=0),
    "an axis out of reach": lambda: node("Softmax", ["x"], axis=-(2**62)),
    "an operator of somebody's": lambda: helper.make_node("Evil", ["x"], ["y"], domain="com.example"),
    "an operator that does not exist": lambda: node("Frobnicate", ["x"]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_onnx_does_not_allow_is_refused_before_any_engine(case: str, tmp_path: Path) -> None:
    weights = np.zeros((3, 3, 1, 1), np.float32)
    path = graph(tmp_path / "odd.onnx", HOSTILE[case](), shape=np.array([0, 3, 8, 8]), w=weights)
    for provider in ON_CPU:
        with raises_code("E-bundle-graph-invalid") as caught:
            open_graph(path, provider, threads=1)
        assert caught.type is BundleError and "odd.onnx is not a valid ONNX graph" in str(caught.value)


def test_the_table_is_that_of_onnx() -> None:
    from edgepure_export.graphs.operator_table import table

    found = Path(sys.modules[check_operators.__module__].__file__ or "").with_name("operators.txt")
    names = {line.split()[0] for line in found.read_text().splitlines()}
    assert names == {line.split()[0] for line in table().splitlines()}, "renew it: see edgepure_export.graphs"


def test_graphs_of_ours_pass() -> None:
    for path in sorted(Path(demo_bundle()).glob("**/*.onnx")):
        check_operators(path)


def test_an_if_is_looked_into(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Min", [], ["z"])], "inner", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    )
    path = graph(tmp_path / "odd.onnx", node("If", ["yes"], then_branch=inner, else_branch=inner), yes=np.array(True))
    with raises_code("E-bundle-graph-invalid"):
        check_operators(path)


@pytest.mark.parametrize("data", [b"", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 40, b"\x3a\x04\x0a\x02\x08", b"\x3b"])
def test_a_file_that_is_cut_off(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd.onnx").write_bytes(data)
    with raises_code("E-bundle-graph-invalid" if data else "E-bundle-graph-empty"):
        open_graph(tmp_path / "odd.onnx")


#: Opens each file and runs it; says before what it opens, so that one that ends the process is known.
CHILD = """
import sys
import numpy as np
from pathlib import Path
from edgepure.engines.open import open_graph
from edgepure.errors import EdgepureError

for path in sorted(Path(sys.argv[2]).glob("*.onnx")):
    print(path.stem, flush=True)
    try:
        with open_graph(path, sys.argv[1], threads=1) as engine:
            engine.run({"x": np.ones((2, 3, 8, 8), np.float32)})
    except EdgepureError as error:
        pass
print("end")
"""


def with_odd_attributes(folder: Path) -> None:
    """A graph for each operator and attribute, with values that somebody might try."""
    odd = {
        defs.OpSchema.AttrType.INT: (-1, 2**31 - 1, -(2**63)),
        defs.OpSchema.AttrType.INTS: ([], [0, 0], [2**31 - 1] * 2, [-1] * 9),
        defs.OpSchema.AttrType.FLOAT: (float("nan"), -1e38),
        defs.OpSchema.AttrType.STRING: ("", "\x1b[31m"),
    }
    number = 0
    for schema in defs.get_all_schemas():
        if schema.domain or schema.since_version > 20 or schema.name in ("If", "Loop", "Scan", "SequenceMap"):
            continue
        inputs = ["x"] * max(schema.min_input, 1)
        cases: list[dict[str, Any]] = [{}]
        cases += [{name: v} for name, a in schema.attributes.items() for v in odd.get(a.type, ())]
        for attributes in cases:
            made = helper.make_node(schema.name, inputs, ["y"], name=ESCAPE)
            for name, value in attributes.items():
                kind = schema.attributes[name].type
                made.attribute.append(helper.make_attribute(name, value, attr_type=int(kind.value)))
            graph(folder / f"{number:04}_{schema.name}.onnx", made)
            number += 1


@pytest.mark.slow
@pytest.mark.parametrize("provider", ON_CPU)
def test_no_operator_ends_the_process(provider: str, tmp_path: Path) -> None:
    """Every operator with odd attributes, in a child: it says which graph it opened last."""
    with_odd_attributes(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, provider, str(tmp_path)], env=environment(), capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "end", f"{done.stdout.splitlines()[-1]}: {done.returncode} {done.stderr}"
    assert "\x1b" not in done.stdout + done.stderr, "names of a stranger's graph steer no terminal"


@pytest.mark.parametrize("provider", ON_CPU)
def test_a_graph_that_fails_when_it_runs_is_the_bundles_fault(
    provider: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of two images it makes three; with a name that would clear the terminal."""
    made = helper.make_node("Reshape", ["x", "shape"], ["y"], name=ESCAPE)
    path = graph(tmp_path / "odd.onnx", made, shape=np.array([7, 3, 8, 8]))
    with open_graph(path, provider, threads=1) as engine, raises_code("E-graph-run") as caught:
        engine.run({"x": np.ones((2, 3, 8, 8), np.float32)})
    assert caught.type is BundleError
    assert capfd.readouterr() == ("", "")
