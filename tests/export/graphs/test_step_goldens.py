"""The goldens through the exported, fused step graph on the engines for the CPU: what a device runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir
import pytest
import torch
from golden_cases import SOURCES
from golden_data import files, torch_epsilon
from golden_trace import Case, TracingStepper, check, run

from edgepure.engines import open_graph
from edgepure.rows.plan import COLUMNS, LEARNED_COLUMNS
from edgepure_export.graphs.step import LearnedStepModule, StepModule
from edgepure_export.graphs.to_onnx import export_graph

pytestmark = pytest.mark.goldens

# Every network is exported once, which takes a second or two: of G2, whose files have one each, only the first.
CASES = [
    (make, path)
    for folder, pattern, make in SOURCES
    for path in (files(folder, pattern)[:1] if folder.startswith("G2") else files(folder, pattern))
]
IDS = [f"{path.parent.name.partition('_')[0]}-{path.stem}" for _, path in CASES]

PROVIDERS = ("cpu", "openvino")

Exporter = Callable[[Path, tuple[int, ...], bool], Path]


@pytest.fixture(scope="module")
def step_graph(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """``step_graph(network, image shape, learned)`` -> the exported graph; each network is exported once."""
    folder, done = tmp_path_factory.mktemp("steps"), {}

    def export(net: Path, shape: tuple[int, ...], learned: bool) -> Path:
        key = (net.read_bytes(), learned)
        if key not in done:
            columns = COLUMNS + LEARNED_COLUMNS if learned else COLUMNS
            inputs = {name: torch.randn(2, *shape) for name in ("x", "ref", "noise")}
            inputs |= {"mask": torch.ones(2, 1, *shape[1:]), "coeffs": torch.rand(2, len(columns)) + 0.5}
            if learned:
                inputs["noise_out"] = torch.randn(2, *shape)
            module = (LearnedStepModule if learned else StepModule)(torch_epsilon(net))
            graph = export_graph("step_learned" if learned else "step", module, inputs, ["x_next"])
            done[key] = folder / f"step{len(done)}.onnx"
            onnx_ir.save(graph.model, done[key])
        return done[key]

    return export


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("make", "path"), CASES, ids=IDS)
def test_trajectory(make: Callable[[Path], Case], path: Path, provider: str, step_graph: Exporter) -> None:
    case = make(path)
    learned = any(plan.learned_variance for plan in case.plans)
    graph = step_graph(case.net, case.refs.shape[1:], learned)
    with open_graph(graph, provider, threads=1) as engine:
        check(case, run(case, TracingStepper(engine.stepper(slots=2))))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_plain_plan_on_the_learned_graph(provider: str, step_graph: Exporter) -> None:
    """A network with learned variance also runs plans without it: the extra columns are zero."""
    cases = [make(path) for make, path in CASES]
    nets = {case.net for case in cases if case.plans[0].learned_variance}
    plain = next(case for case in cases if case.net in nets and not case.plans[0].learned_variance)
    graph = step_graph(plain.net, plain.refs.shape[1:], True)
    with open_graph(graph, provider, threads=1) as engine:
        check(plain, run(plain, TracingStepper(engine.stepper(slots=3))))
