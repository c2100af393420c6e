"""The guided-diffusion UNet against the original network's outputs (goldens G8)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx_parity
import pytest
import torch
from codes import raises_code
from goldens_path import goldens_dir
from network_goldens import TOLERANCE, Golden, difference, load, meta_state, names, record, shapes
from torch.nn import functional as F

from edgepure_export.networks import guided_config
from edgepure_export.networks import guided_diffusion as gd
from edgepure_export.networks.checkpoints import read_checkpoint
from edgepure_export.networks.load import load_diffusion
from edgepure_export.networks.parametrisation import EpsilonOnly

FOLDER = "G8_unet_guided_diffusion"
TINY = gd.GuidedDiffusionConfig(
    image_size=8, num_channels=32, num_res_blocks=1, channel_mult=(1, 2), attention_factors=(2,)
)


@pytest.fixture(params=names(FOLDER, "unet_*.safetensors"))
def golden(request: pytest.FixtureRequest) -> Golden:
    return load(FOLDER, request.param)


def network(golden: Golden) -> gd.GuidedDiffusionUNet:
    config = gd.GuidedDiffusionConfig.from_flags(golden.settings["flags"])
    return gd.from_state_dict(read_checkpoint(golden.weights), config, golden.name)


@pytest.mark.goldens
def test_output_and_activations_are_the_original_ones(golden: Golden) -> None:
    net = network(golden)
    taps = {
        "act_emb": "time_embed",
        "act_input_blocks_last": f"input_blocks.{len(net.input_blocks) - 1}",
        "act_middle_block": "middle_block",
        "act_output_blocks_0": "output_blocks.0",
    }
    out, seen = record(net, (golden.tensor("x"), golden.tensor("t")), list(taps.values()))
    assert difference(out, golden.arrays["out"]) < TOLERANCE
    for key, tap in taps.items():
        wanted = golden.arrays[key]
        assert difference(seen[tap][: len(wanted)], wanted) < TOLERANCE, key


@pytest.mark.goldens
def test_keys_are_the_original_ones_in_the_original_order(golden: Golden) -> None:
    net = network(golden)
    assert list(shapes(net).items()) == list(golden.settings["keys"].items())
    assert sum(p.numel() for p in net.parameters()) == golden.settings["num_params"]


@pytest.mark.goldens
@pytest.mark.parametrize("name", names(FOLDER, "full_*_keys.json"))
def test_full_size_network_has_exactly_the_published_keys(name: str) -> None:
    recorded = json.loads((goldens_dir() / FOLDER / f"{name}.json").read_text())
    config = gd.GuidedDiffusionConfig.from_flags(recorded["flags"])
    with torch.device("meta"):
        net = gd.GuidedDiffusionUNet(config)
    assert shapes(net) == recorded["keys"]
    assert sum(p.numel() for p in net.parameters()) == recorded["num_params"]
    # Nothing but the file is needed for a published network.
    assert gd.infer_config(meta_state(recorded["keys"])) == config


@pytest.mark.goldens
def test_structure_follows_from_the_keys(golden: Golden) -> None:
    config = gd.GuidedDiffusionConfig.from_flags(golden.settings["flags"])
    structure = guided_config.infer_structure(meta_state(golden.settings["keys"]))
    if len(config.channel_mult) == 1:  # nothing is resampled
        structure["resblock_updown"] = config.resblock_updown
    assert structure == {k: getattr(config, k) for k in structure}


@pytest.mark.goldens
def test_exported_graph_agrees(golden: Golden, tmp_path: Path) -> None:
    inputs = (golden.tensor("x"), golden.tensor("t"))
    assert onnx_parity.deviation(network(golden), inputs, tmp_path / "unet.onnx") < TOLERANCE


@pytest.mark.goldens
def test_loads_from_the_file_with_the_flags_beside_it(golden: Golden) -> None:
    loaded = load_diffusion("guided-diffusion", golden.weights)
    assert loaded.learned_range == golden.settings["flags"]["learn_sigma"]
    assert loaded.image_size == golden.settings["flags"]["image_size"]
    x, t = golden.tensor("x"), golden.tensor("t")
    if golden.settings["flags"]["noise_schedule"] == "linear":  # then t needs no translation
        with torch.no_grad():
            out = loaded.model(x, t)
            eps = EpsilonOnly(loaded.model)(x, t)
        assert difference(out, golden.arrays["out"]) < TOLERANCE
        assert torch.equal(eps, out[:, : x.shape[1]])


def test_both_attention_orders_differ_only_in_the_layout_of_qkv() -> None:
    legacy, new = (gd.AttentionBlock(64, 4, new_order=order) for order in (False, True))
    state = legacy.state_dict()
    for key in ("qkv.weight", "qkv.bias"):  # legacy: [heads, 3, d], new: [3, heads, d]
        value = state[key]
        state[key] = value.unflatten(0, (4, 3, 16)).transpose(0, 1).reshape(value.shape)
    new.load_state_dict(state)
    x = torch.randn(2, 64, 4, 6)
    with torch.no_grad():
        assert torch.allclose(legacy(x), new(x), atol=1e-6)
        new.load_state_dict(legacy.state_dict())
        assert not torch.allclose(legacy(x), new(x), atol=1e-3)


@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("resample", ["", "up", "down"])
def test_residual_block_is_its_formula(scale_shift: bool, resample: str) -> None:
    block = gd.ResBlock(32, 64, 12, scale_shift, resample).double()
    x, emb = torch.randn(2, 32, 4, 4).double(), torch.randn(2, 12).double()
    change = {
        "": lambda a: a,
        "up": lambda a: a.repeat_interleave(2, 2).repeat_interleave(2, 3),
        "down": lambda a: a.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)),
    }[resample]

    def norm(layer: torch.nn.Module, a: torch.Tensor) -> torch.Tensor:
        groups = a.unflatten(1, (32, -1)).flatten(2)
        standard = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return standard.reshape(a.shape) * layer.weight[:, None, None] + layer.bias[:, None, None]

    def conv(layer: torch.nn.Module, a: torch.Tensor) -> torch.Tensor:
        return F.conv2d(a, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    with torch.no_grad():
        h = conv(block.in_layers[2], change(F.silu(norm(block.in_layers[0], x))))
        e = (emb @ block.emb_layers[1].weight.T + block.emb_layers[1].bias)[:, :, None, None]
        if scale_shift:
            h = norm(block.out_layers[0], h) * (1 + e[:, :64]) + e[:, 64:]
        else:
            h = norm(block.out_layers[0], h + e)
        expected = conv(block.skip_connection, change(x)) + conv(block.out_layers[3], F.silu(h))
        assert torch.allclose(block(x, emb), expected, atol=1e-10)


def test_presets_can_be_built_and_are_recognised_by_their_keys() -> None:
    for name, config in guided_config.PRESETS.items():
        with torch.device("meta"):
            net = gd.GuidedDiffusionUNet(config)
        assert gd.infer_config(net.state_dict()) == config, name


def test_unpublished_shape_needs_what_the_keys_do_not_tell() -> None:
    state = gd.GuidedDiffusionUNet(TINY).state_dict()
    with raises_code("E-guided-flags-needed"):
        gd.infer_config(state)
    assert gd.infer_config(state, given={"image_size": 8, "num_heads": 4}) == TINY
    with raises_code("E-guided-flags-partial"):
        gd.infer_config(state, given={"image_size": 8, "num_heads": 4, "channel_mult": "1,2"})


def test_flags_that_contradict_the_weights_are_refused() -> None:
    state = gd.GuidedDiffusionUNet(TINY).state_dict()
    with raises_code("E-checkpoint-keys"):
        gd.from_state_dict(state, replace(TINY, use_scale_shift_norm=False))
    with raises_code("E-checkpoint-keys"):
        gd.from_state_dict(state, replace(TINY, num_res_blocks=2))


def test_class_conditional_networks_are_refused() -> None:
    state = gd.GuidedDiffusionUNet(TINY).state_dict() | {"label_emb.weight": torch.zeros(10, 128)}
    with raises_code("E-checkpoint-conditional"):
        guided_config.infer_structure(state)
    with raises_code("E-checkpoint-conditional"):
        gd.GuidedDiffusionConfig.from_flags({"class_cond": True})


def test_unknown_flag_is_named() -> None:
    with raises_code("E-guided-flags-unknown"):
        gd.GuidedDiffusionConfig.from_flags({"num_chanels": 128})


def test_separate_number_of_heads_for_the_decoder() -> None:
    config = replace(TINY, num_heads=4, num_heads_upsample=2)
    assert (config.heads(64, upsampling=False), config.heads(64, upsampling=True)) == (4, 2)
    assert replace(config, num_head_channels=16).heads(64, upsampling=True) == 4


def test_half_precision_keeps_exact_timesteps() -> None:
    """Cast to bfloat16, neighbouring timesteps must still be told apart: 801 and 802 are the same bfloat16 number."""
    net = gd.GuidedDiffusionUNet(TINY).to(torch.bfloat16).eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16)
    _, seen = record(net, (x, torch.tensor([801.0, 802.0])), ["time_embed"])
    assert not torch.equal(seen["time_embed"][0], seen["time_embed"][1])
