"""One file of weights for many graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgepure.bundle.external_data import external_tensors
from edgepure_export.bundle.after_export import open_session
from edgepure_export.graphs.weights_pool import WeightsPool


def model(weights: dict[str, np.ndarray]) -> ir.Model:
    """y = x + sum of the weights' first elements, so that every weight is used."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 1]))
    initializers, nodes, last = [], [], x
    for name, array in weights.items():
        value = ir.Value(name=name, const_value=ir.tensor(array), type=ir.TensorType(ir.DataType.FLOAT))
        value.shape = ir.Shape(array.shape)
        initializers.append(value)
        total = ir.node("ReduceSum", [value], attributes={"keepdims": 0})
        add = ir.node("Add", [last, total.outputs[0]])
        nodes += [total, add]
        last = add.outputs[0]
    last.name, last.type, last.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", 1])
    graph = ir.Graph([x], [last], nodes=nodes, initializers=initializers, opset_imports={"": 20}, name="toy")
    return ir.Model(graph, ir_version=9)


def test_equal_tensors_share_their_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shared, alone = (rng.standard_normal(300).astype(np.float32) for _ in range(2))
    large = rng.standard_normal(300_000).astype(np.float32)
    small = np.arange(4, dtype=np.float32)
    with WeightsPool(tmp_path) as pool:
        pool.save(model({"a": shared, "b": small, "big": large}), "one.onnx")
        pool.save(model({"c": alone, "d": shared.copy(), "e": shared.reshape(10, 30)}), "two.onnx")
        assert pool.tensors == 3
        assert pool.size == (tmp_path / "weights.bin").stat().st_size
    offsets = {}
    for name in ("one", "two"):
        for tensor in onnx.load(tmp_path / f"{name}.onnx", load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if tensor.name == "b":
                assert not place
            else:
                assert place["location"] == "weights.bin"
                offsets[tensor.name] = int(place["offset"])
    assert offsets["a"] == offsets["d"] == offsets["e"]
    assert offsets["big"] % 4096 == 0
    assert all(offset % 64 == 0 for offset in offsets.values())
    for name, arrays in (("one", [shared, small, large]), ("two", [alone, shared, shared])):
        (y,) = open_session(tmp_path / f"{name}.onnx", threads=1).run(None, {"x": np.zeros((2, 1), np.float32)})
        np.testing.assert_allclose(y, np.full((2, 1), sum(a.sum() for a in arrays)), rtol=0, atol=2e-2)
        loaded = onnx.load(tmp_path / f"{name}.onnx")
        assert all(len(tensor.raw_data) > 0 for tensor in loaded.graph.initializer)


def test_an_old_file_is_never_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        WeightsPool(tmp_path)


def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    """The limit of a protobuf message. The tensors are made one at a time and are equal, so the disk holds one."""
    count, shape = 9, (64, 1024, 1024)
    names = [f"w{i}" for i in range(count)]
    toy = model({name: np.zeros(1, np.float32) for name in names})
    for name in names:
        value = toy.graph.initializers[name]
        value.shape = ir.Shape(shape)
        value.const_value = ir.LazyTensor(
            lambda: ir.Tensor(np.zeros(shape, np.float32)), dtype=ir.DataType.FLOAT, shape=value.shape, name=name
        )
    with WeightsPool(tmp_path) as pool:
        path = pool.save(toy, "big.onnx")
        assert pool.size == 256 << 20
    assert path.stat().st_size < 10_000
    onnx.checker.check_model(str(path))
    tensors = external_tensors(path)
    assert sum(tensor.length or 0 for tensor in tensors) > 2 << 30


def test_weights_of_another_pool_are_taken_over(tmp_path: Path) -> None:
    """A graph that is saved anew, elsewhere, no longer needs the file that it came from."""
    weights = np.arange(400, dtype=np.float32)
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    with WeightsPool(tmp_path / "old") as pool:
        pool.save(model({"a": weights}), "one.onnx")
    loaded = ir.load(tmp_path / "old" / "one.onnx")
    with WeightsPool(tmp_path / "new") as pool:
        pool.save(loaded, "one.onnx")
        pool.save(loaded, "again.onnx")  # what is in this pool already is not written twice
        assert pool.tensors == 1 and pool.size == weights.nbytes
    (tmp_path / "old" / "weights.bin").unlink()
    (y,) = open_session(tmp_path / "new" / "one.onnx", threads=1).run(None, {"x": np.zeros((2, 1), np.float32)})
    np.testing.assert_allclose(y, np.full((2, 1), weights.sum()))
