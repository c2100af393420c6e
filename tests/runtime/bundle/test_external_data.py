"""The wire scan finds every external tensor that the onnx package finds, and survives anything else."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import minimal_bundle
import onnx
import pytest
from codes import raises_code
from goldens_path import goldens_dir
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgepure.bundle.external_data import ExternalTensor, external_tensors
from edgepure.errors import BundleError


def model_with_tensors_everywhere() -> tuple[onnx.ModelProto, set[str]]:
    """A model with an external tensor in every place where ONNX has tensors, and their locations."""
    places: set[str] = set()

    def tensor(place: str) -> TensorProto:
        places.add(place)
        return minimal_bundle.external_tensor(place, name=place)

    def sparse(place: str) -> onnx.SparseTensorProto:
        return onnx.SparseTensorProto(values=tensor(f"{place}.values"), indices=tensor(f"{place}.indices"), dims=[9])

    def attributes(place: str) -> list[onnx.AttributeProto]:
        def graph(name: str) -> onnx.GraphProto:
            return helper.make_graph([], name, [], [], [tensor(f"{place}.{name}")])

        Attribute = onnx.AttributeProto
        return [
            Attribute(name="t", type=Attribute.TENSOR, t=tensor(f"{place}.t")),
            Attribute(name="ts", type=Attribute.TENSORS, tensors=[tensor(f"{place}.ts0"), tensor(f"{place}.ts1")]),
            Attribute(name="g", type=Attribute.GRAPH, g=graph("g")),
            Attribute(name="gs", type=Attribute.GRAPHS, graphs=[graph("gs0"), graph("gs1")]),
            Attribute(name="s", type=Attribute.SPARSE_TENSOR, sparse_tensor=sparse(f"{place}.s")),
            Attribute(name="ss", type=Attribute.SPARSE_TENSORS, sparse_tensors=[sparse(f"{place}.ss")]),
        ]

    def node(place: str) -> onnx.NodeProto:
        return onnx.NodeProto(op_type="If", input=["x"], output=["y"], attribute=attributes(place))

    deep = helper.make_graph([node("deep")], "deep", [], [])
    for i in range(20):
        holder = onnx.NodeProto(op_type="If", attribute=[onnx.AttributeProto(name="g", g=deep)])
        deep = helper.make_graph([holder], f"deep{i}", [], [])
    graph = helper.make_graph([node("node"), *deep.node], "main", [], [], [tensor("initializer")])
    graph.sparse_initializer.append(sparse("sparse"))
    model = helper.make_model(graph)
    function = onnx.FunctionProto(name="f", node=[node("function")], attribute_proto=attributes("default"))
    model.functions.append(function)
    training = onnx.TrainingInfoProto()
    training.initialization.initializer.append(tensor("initialization"))
    training.algorithm.node.append(node("algorithm"))
    model.training_info.append(training)
    return model, places


MODEL, PLACES = model_with_tensors_everywhere()
DATA = MODEL.SerializeToString()


def test_tensors_are_found_in_every_place(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(DATA)
    found = external_tensors(tmp_path / "m.onnx")
    assert {t.location for t in found} == PLACES
    assert len(found) == len(PLACES) > 50
    assert {(t.offset, t.length) for t in found} == {(0, minimal_bundle.TENSOR_BYTES)}


def test_offset_and_length_are_optional(tmp_path: Path) -> None:
    tensor = minimal_bundle.external_tensor("w")
    del tensor.external_data[1:]
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    onnx_path = tmp_path / "m.onnx"
    onnx_path.write_bytes(model.SerializeToString())
    assert external_tensors(onnx_path) == [ExternalTensor("w", 0, None)]


def test_location_counts_even_if_the_tensor_is_not_marked_external(tmp_path: Path) -> None:
    tensor = minimal_bundle.external_tensor("../evil")
    tensor.data_location = TensorProto.DEFAULT
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert [t.location for t in external_tensors(tmp_path / "m.onnx")] == ["../evil"]


def test_two_locations_of_one_tensor_are_refused(tmp_path: Path) -> None:
    tensor = minimal_bundle.external_tensor("weights.bin")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../evil"
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with raises_code("E-bundle-graph-invalid"):
        external_tensors(tmp_path / "m.onnx")


@pytest.mark.parametrize("number", ["-1", "1e3", " 1", "", "0x10", "9" * 20, "²"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, number: str) -> None:
    tensor = minimal_bundle.external_tensor("w", offset=number)
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with raises_code("E-bundle-graph-invalid"):
        external_tensors(tmp_path / "m.onnx")


def test_graphs_without_external_data_have_none() -> None:
    graphs = sorted(goldens_dir().rglob("*.onnx"))
    assert graphs
    for path in graphs:
        assert external_tensors(path) == []


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    def inside(field: int, message: bytes) -> bytes:
        size, length = len(message), b""
        while size >= 0x80:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([field << 3 | 2]) + length + bytes([size]) + message

    graph = b""
    for _ in range(1000):
        graph = inside(1, inside(5, inside(6, graph)))  # graph > node > attribute > graph
    (tmp_path / "m.onnx").write_bytes(inside(7, graph))
    with raises_code("E-bundle-graph-invalid"):
        external_tensors(tmp_path / "m.onnx")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scan") / "m.onnx"


def scan_or_refusal(path: Path, data: bytes) -> set[str] | None:
    path.write_bytes(data)
    try:
        return {t.location for t in external_tensors(path)}
    except BundleError:
        return None


@given(data=st.binary(max_size=200))
def test_any_bytes_are_scanned_or_refused(scratch: Path, data: bytes) -> None:
    found = scan_or_refusal(scratch, data)
    assert found is None or isinstance(found, set)


@given(length=st.integers(0, len(DATA) - 1))
def test_cut_off_models_are_scanned_or_refused(scratch: Path, length: int) -> None:
    found = scan_or_refusal(scratch, DATA[:length])
    assert found is None or found <= PLACES


@given(position=st.integers(0, len(DATA) - 1), byte=st.integers(0, 255))
def test_what_protobuf_reads_of_a_damaged_model_the_scan_reads_too(scratch: Path, position: int, byte: int) -> None:
    data = DATA[:position] + bytes([byte]) + DATA[position + 1 :]
    found = scan_or_refusal(scratch, data)
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception:
        return  # no engine reads it either
    if found is not None:
        seen = {e.value for t in tensors_of(model) for e in t.external_data if e.key == "location"}
        assert seen <= found


def tensors_of(message: object) -> list[TensorProto]:
    """Every TensorProto inside a protobuf message."""
    if isinstance(message, TensorProto):
        return [message]
    result: list[TensorProto] = []
    for field, value in message.ListFields():  # type: ignore[attr-defined]
        if field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                result += tensors_of(item)
    return result


def test_many_empty_tensors_take_no_memory(tmp_path: Path) -> None:
    """A file of 56 MB of them cost gigabytes: only what is being walked through is kept."""
    tensor = b"\x2a\x12\x42\x10" + b"a" * 16  # an initializer that has a name
    path, graph = tmp_path / "many.onnx", tensor * 100_000
    size = len(graph)
    path.write_bytes(
        b"\x08\x09\x3a" + bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21)) + graph
    )
    assert len(onnx.load_model_from_string(path.read_bytes()).graph.initializer) == 100_000
    tracemalloc.start()
    assert external_tensors(path) == []
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
