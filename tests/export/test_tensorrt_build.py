"""TensorRT's own parser and builder accept every graph, without a GPU (TensorRT for RTX builds ahead of time)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepure.bundle import Bundle

trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (pip install edgepure[rtx])")

GRAPHS = ("classifier", "mask", "step", "step_learned", "unet")


class Messages(trt.ILogger):  # type: ignore[misc, name-defined]
    """Keeps what the builder complains about."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self.errors.append(msg)


@pytest.mark.parametrize("name", GRAPHS)
def test_parses_and_builds(tiny_bundle: Path, name: str) -> None:
    bundle = Bundle.open(tiny_bundle, verify=False)
    logger = Messages()
    builder = trt.Builder(logger)
    # The network must outlive the parser, so both stay in variables.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(bundle.graph_path(name)))
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    assert parsed, [(e.node_name(), e.node_operator(), e.desc()) for e in errors]

    entry = bundle.manifest.graphs[name]  # type: ignore[index]
    inputs = {network.get_input(i).name: network.get_input(i) for i in range(network.num_inputs)}
    outputs = [network.get_output(i).name for i in range(network.num_outputs)]
    assert list(inputs) == [tensor.name for tensor in entry.inputs]
    assert outputs == [tensor.name for tensor in entry.outputs]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for tensor in entry.inputs:
        assert inputs[tensor.name].shape[0] == -1, f"{tensor.name} has no dynamic batch"
        shapes = [(batch, *tensor.shape[1:]) for batch in (1, 2, 8)]
        profile.set_shape(tensor.name, *shapes)
    assert config.add_optimization_profile(profile) == 0, logger.errors
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, logger.errors
    assert plan.nbytes > 1000
    assert not logger.errors
