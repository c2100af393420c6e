"""Both WideResNet families against the original networks (goldens G10), and their attention taps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_parity
import pytest
import torch
from codes import raises_code
from goldens_path import goldens_dir
from network_goldens import TOLERANCE, Golden, difference, load, meta_state, names, record, shapes

from edgepure_export.graphs.taps import default_taps, find_taps
from edgepure_export.networks import wideresnet as wrn
from edgepure_export.networks.checkpoints import read_checkpoint
from edgepure_export.networks.load import load_wideresnet

FOLDER = "G10_robustbench_wrn"
#: ImageNet's mean and std, which the authors' mask code applies to images in [-1, 1] (a quirk that goldens record).
QUIRK_MEAN, QUIRK_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(params=names(FOLDER, "wrn_*.safetensors"))
def golden(request: pytest.FixtureRequest) -> Golden:
    return load(FOLDER, request.param)


def network(golden: Golden) -> wrn.WideResNet | wrn.DMWideResNet:
    arch = golden.settings["arch"]
    return load_wideresnet(
        golden.weights,
        activation="relu" if "relu" in arch["family"].lower() else "silu",
        mean=tuple(arch["mean"]) if "mean" in arch else None,
        std=tuple(arch["std"]) if "std" in arch else None,
    )


@pytest.mark.goldens
def test_logits_and_tapped_activations_are_the_original_ones(golden: Golden) -> None:
    net = network(golden)
    taps = default_taps(net)
    logits, seen = record(net, (golden.tensor("x"),), taps)
    assert difference(logits, golden.arrays["logits"]) < TOLERANCE
    assert len(taps) == len(golden.arrays["act_order"])
    for i, (name, tap) in enumerate(zip(golden.arrays["act_order"], taps, strict=True)):
        wanted = golden.arrays[f"act_{name}"]
        assert difference(seen[tap][: len(wanted)], wanted) < TOLERANCE, name
        power = float((seen[tap].double() ** 2).sum())
        assert power == pytest.approx(float(golden.arrays["act_sqsum_all"][i]), rel=1e-6)


@pytest.mark.goldens
def test_input_of_the_official_mask(golden: Golden) -> None:
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (QUIRK_MEAN, QUIRK_STD))
    seen = (2 * golden.tensor("x") - 1 - mean) / std
    logits, _ = record(network(golden), (seen,), [])
    assert difference(logits, golden.arrays["logits_on_dhni_mask_input"]) < TOLERANCE


@pytest.mark.goldens
def test_width_and_depth_follow_from_the_keys(golden: Golden) -> None:
    arch, config = golden.settings["arch"], network(golden).config
    assert (config.depth, config.widen_factor) == (arch["depth"], arch.get("widen_factor", arch.get("width")))
    assert shapes(network(golden)) == golden.settings["keys"]


@pytest.mark.goldens
def test_full_size_networks_have_exactly_the_published_keys() -> None:
    for name, recorded in json.loads((goldens_dir() / FOLDER / "full_size_keys.json").read_text()).items():
        kind, config = wrn.infer_config(meta_state(recorded["keys"]), name)
        with torch.device("meta"):
            net = kind(config)
        assert shapes(net) == recorded["keys"], name
        assert sum(p.numel() for p in net.parameters()) == recorded["num_params"]
        assert f"{config.depth}-{config.widen_factor}" in name


@pytest.mark.goldens
@pytest.mark.parametrize("wrap", ["plain", "module.", "model.", "module.model.", "state_dict"])
def test_wrappings_of_robustbench_files(golden: Golden, wrap: str, tmp_path: Path) -> None:
    state = read_checkpoint(golden.weights)
    if wrap == "state_dict":
        content = {
            "state_dict": {f"module.{k}": v for k, v in state.items()},
            "epoch": 200,
            "best_acc": np.float64(0.9),
        }
    else:
        content = {k if wrap == "plain" else wrap + k: v for k, v in state.items()}
    torch.save(content, tmp_path / "model.pt")
    wanted, _ = record(network(golden), (golden.tensor("x"),), [])
    if isinstance(network(golden), wrn.WideResNet) or "relu" not in golden.settings["arch"]["family"].lower():
        got, _ = record(load_wideresnet(tmp_path / "model.pt"), (golden.tensor("x"),), [])
        assert torch.equal(got, wanted)


@pytest.mark.goldens
def test_exported_graph_agrees(golden: Golden, tmp_path: Path) -> None:
    assert onnx_parity.deviation(network(golden), (golden.tensor("x"),), tmp_path / "wrn.onnx") < TOLERANCE


def test_taps_are_found_inside_a_wrapper() -> None:
    with torch.device("meta"):
        net = torch.nn.Sequential(torch.nn.Identity(), wrn.WideResNet(wrn.WideResNetConfig(16, 1)))
    taps = find_taps(net)
    assert taps.names == ("1.block1.layer.1.relu2", "1.block2.layer.1.relu2", "1.block3.layer.1.relu2", "1.relu")
    assert taps.prefix_tokens is None


def test_variants_of_the_standard_naming() -> None:
    """TRADES files carry a block that is never used; some heads have no bias."""
    net = wrn.WideResNet(wrn.WideResNetConfig(10, 1, num_classes=7, bias_last=False, sub_block1=True)).eval()
    again = wrn.from_state_dict(net.state_dict())
    assert again.config == net.config
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(record(again, (x,), [])[0], record(net, (x,), [])[0])


def test_normalisation_kept_in_the_file_wins() -> None:
    """Newer RobustBench files hold mean and std as buffers."""
    config = wrn.WideResNetConfig(10, 1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), stored_normalisation=True)
    net = wrn.DMWideResNet(config).eval()
    again = wrn.from_state_dict(net.state_dict())
    assert torch.equal(again.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(record(again, (x,), [])[0], record(net, (x,), [])[0])


def test_normalisation_of_an_unknown_data_set_must_be_given() -> None:
    state = wrn.DMWideResNet(wrn.WideResNetConfig(10, 1, num_classes=200)).state_dict()
    with raises_code("E-wideresnet-mean"):
        wrn.from_state_dict(state)
    net = wrn.from_state_dict(state, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert net.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_impossible_depth() -> None:
    with raises_code("E-wideresnet-depth"):
        _ = wrn.WideResNetConfig(20, 1).blocks


def test_other_networks_are_not_wideresnets() -> None:
    with raises_code("E-checkpoint-incomplete"):
        wrn.from_state_dict({"layer1.0.conv1.weight": torch.zeros(1)}, "resnet.pt")
