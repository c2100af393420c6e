"""OpenVINO on single graphs: what ONNX Runtime gives, from several threads too, and its faults are errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from codes import raises_code

import edgepure
from edgepure.engines import Engine, open_graph
from edgepure.engines.base import BoundCall
from edgepure.engines.openvino import OpenVinoEngine
from edgepure.types import Float32

DIGITS = edgepure.demo_bundle()
pytestmark = pytest.mark.needs("openvino")


def feeds(engine: Engine, batch: int, seed: int = 0) -> dict[str, Float32]:
    """Inputs of a graph, all in [0, 1)."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.random((batch, *(int(n) for n in spec.shape[1:])), dtype=np.float32)
        for name, spec in engine.inputs.items()
    }


def bound_result(engine: Engine, inputs: dict[str, Float32]) -> dict[str, Float32]:
    """What a bound call writes."""
    call = engine.bound(len(next(iter(inputs.values()))))
    return written_by(call, inputs)


def written_by(call: BoundCall, inputs: dict[str, Float32]) -> dict[str, Float32]:
    for name, array in inputs.items():
        call.inputs[name][...] = array
    call()
    outputs: dict[str, Float32] = call._outputs  # type: ignore[attr-defined]
    return outputs


@pytest.mark.parametrize("graph", ["classifier", "mask", "step", "unet"])
def test_graphs_of_a_bundle_give_what_onnxruntime_gives(graph: str) -> None:
    with (
        open_graph(DIGITS / f"{graph}.onnx", "openvino", threads=2) as engine,
        open_graph(DIGITS / f"{graph}.onnx", "cpu", threads=1) as other,
    ):
        assert engine.provider == "openvino"
        assert engine.inputs == other.inputs
        assert engine.outputs == other.outputs
        for batch in (1, 2, 8):
            inputs = feeds(engine, batch)
            wanted = other.run(inputs)
            for found in (engine.run(inputs), bound_result(engine, inputs)):
                assert found.keys() == wanted.keys()
                for name, array in wanted.items():
                    np.testing.assert_allclose(found[name], array, atol=2e-5, err_msg=name)


@pytest.fixture
def step() -> OpenVinoEngine:
    return OpenVinoEngine(DIGITS / "step.onnx", 2)


@pytest.mark.parametrize(("batch", "parts"), [(1, 1), (7, 1), (8, 2), (11, 1), (12, 2)])
def test_a_full_batch_is_divided_among_threads(
    step: OpenVinoEngine, monkeypatch: pytest.MonkeyPatch, batch: int, parts: int
) -> None:
    """Into equal parts of at least four images; what they give is the same."""
    sizes = []
    tensor = step._openvino.Tensor
    monkeypatch.setattr(step._openvino, "Tensor", lambda array, **how: sizes.append(len(array)) or tensor(array, **how))
    inputs = feeds(step, batch)
    found = bound_result(step, inputs)["x_next"]
    assert sizes == [batch // parts] * parts * 6
    np.testing.assert_allclose(found, step.run(inputs)["x_next"], atol=2e-6)


def test_inputs_may_be_read_only_or_scattered(step: OpenVinoEngine) -> None:
    inputs = feeds(step, 4)
    wanted = step.run(inputs)["x_next"]
    scattered = {name: np.asfortranarray(array) for name, array in inputs.items()}
    np.testing.assert_array_equal(step.run(scattered)["x_next"], wanted)
    for array in inputs.values():
        array.flags.writeable = False
    np.testing.assert_array_equal(step.run(inputs)["x_next"], wanted)


def test_inputs_that_do_not_fit_are_named(step: OpenVinoEngine) -> None:
    good = feeds(step, 2)
    with raises_code("E-engine-input-names"):
        step.run({"x": good["x"]})
    with raises_code("E-engine-input"):
        step.run(good | {"x": good["x"][..., :8]})
    with raises_code("E-engine-input"):
        step.run(good | {"coeffs": good["coeffs"].astype(np.float64)})
    for inputs in (good | {"ref": feeds(step, 3)["ref"]}, good | {"x": good["x"][:1]}):
        with raises_code("E-engine-batch"):
            step.run(inputs)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_calls_on_one_engine_leave_each_other_alone(step: OpenVinoEngine, batch: int) -> None:
    """Slots, a bound call and `run` share the compiled graph; each has arrays of its own."""
    first, second = feeds(step, batch, 1), feeds(step, batch, 2)
    wanted = [step.run(inputs)["x_next"] for inputs in (first, second)]
    stepper, calls = step.stepper(3), [step.bound(batch) for _ in range(2)]
    for slot in range(batch):
        stepper.admit(slot, first["x"][slot], first["ref"][slot], first["mask"][slot])
    stepper.noise[:batch], stepper.coeffs[:batch] = first["noise"], first["coeffs"]
    found = [written_by(call, inputs)["x_next"] for call, inputs in zip(calls, (first, second), strict=True)]
    stepper.step(batch)
    again = step.run(second)["x_next"]
    kept = again.copy()
    written_by(calls[0], second)
    for slot in range(batch):
        np.testing.assert_allclose(stepper.state(slot), wanted[0][slot], rtol=1e-6, atol=2e-6)
    for array, right in ((found[0], wanted[1]), (found[1], wanted[1]), (again, kept), (kept, wanted[1])):
        np.testing.assert_allclose(array, right, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_share_an_engine(threads: int) -> None:
    """Each thread compares its own results, made at the same time as those of the others."""
    with OpenVinoEngine(DIGITS / "step.onnx", threads) as engine:
        cases = [(batch, feeds(engine, batch, seed)) for seed, batch in enumerate((1, 1, 3, 5, 8, 8))]
        with OpenVinoEngine(DIGITS / "step.onnx", 1) as alone:
            wanted = [alone.run(inputs)["x_next"] for _, inputs in cases]

        def work(case: int) -> None:
            batch, inputs = cases[case]
            call = engine.bound(batch)
            for _ in range(10):
                for found in (engine.run(inputs), written_by(call, inputs)):
                    np.testing.assert_allclose(found["x_next"], wanted[case], atol=2e-6)

        with ThreadPoolExecutor(len(cases)) as pool:
            list(pool.map(work, range(len(cases))))
