"""The DDPM++/NCSN++ network and its training checkpoint against the original (goldens G9)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_parity
import pytest
import torch
from codes import raises_code
from goldens_path import goldens_dir
from network_goldens import TOLERANCE, Golden, difference, load, meta_state, names, record, shapes
from numpy.typing import NDArray
from torch import Tensor, nn

from edgepure_export.networks import ncsnpp
from edgepure_export.networks.checkpoints import read_checkpoint
from edgepure_export.networks.layers import downsample2, upsample2
from edgepure_export.networks.load import load_diffusion
from edgepure_export.networks.parametrisation import to_epsilon
from edgepure_export.networks.weights import strip_prefixes

FOLDER = "G9_unet_score_sde"
TINY = ncsnpp.NCSNppConfig(nf=8, ch_mult=(1, 2), num_res_blocks=1, image_size=8)


@pytest.fixture(params=names(FOLDER, "ncsnpp_*.safetensors"))
def golden(request: pytest.FixtureRequest) -> Golden:
    return load(FOLDER, request.param)


@pytest.fixture(params=names(FOLDER, "checkpoint_*.pt"))
def training_checkpoint(request: pytest.FixtureRequest) -> Golden:
    return load(FOLDER, request.param)


def network(golden: Golden) -> ncsnpp.NCSNpp:
    config = ncsnpp.NCSNppConfig.from_json(golden.settings["config"])
    return ncsnpp.from_checkpoint(read_checkpoint(golden.weights), golden.name, config)


@pytest.mark.goldens
def test_output_and_activations_are_the_original_ones(golden: Golden) -> None:
    net = network(golden)
    taps = {key: f"all_modules.{key[len('act_attn_module') :]}" for key in golden.arrays if "attn_module" in key}
    taps["act_temb"] = "all_modules.1"
    out, seen = record(net, (golden.tensor("x"), golden.tensor("t")), list(taps.values()))
    assert difference(out, golden.arrays["out"]) < TOLERANCE
    assert len(taps) > 1
    for key, tap in taps.items():
        wanted = golden.arrays[key]
        assert difference(seen[tap][: len(wanted)], wanted) < TOLERANCE, key


@pytest.mark.goldens
def test_score_of_the_original_becomes_its_epsilon(golden: Golden) -> None:
    """A score function made as score_sde makes it, converted back, is the network itself."""

    class Score(nn.Module):
        def forward(self, x: Tensor, s: Tensor) -> Tensor:
            assert torch.allclose(s.double(), golden.tensor("s").double(), rtol=1e-6)
            return golden.tensor("score")

    eps = to_epsilon(Score(), "score")(golden.tensor("x"), golden.tensor("t"))
    # The original's float32 standard deviation is off by 1.2e-4 (relative) at s = 1/1000.
    assert np.allclose(eps.numpy(), golden.arrays["out"], rtol=2e-4, atol=1e-5)


@pytest.mark.goldens
def test_parameters_are_registered_in_the_original_order(golden: Golden) -> None:
    net = network(golden)
    assert [n for n, _ in net.named_parameters()] == golden.settings["parameter_order"]
    assert shapes(net) == golden.settings["keys"]


@pytest.mark.goldens
@pytest.mark.parametrize("name", names(FOLDER, "full_*_keys.json"))
def test_full_size_network_has_exactly_the_published_keys(name: str) -> None:
    recorded = json.loads((goldens_dir() / FOLDER / f"{name}.json").read_text())
    config = ncsnpp.NCSNppConfig.from_json(recorded["config"])
    with torch.device("meta"):
        net = ncsnpp.NCSNpp(config)
    assert shapes(net) == recorded["keys"]
    assert sum(p.numel() for p in net.parameters()) == recorded["num_params"]
    assert ncsnpp.infer_config(meta_state(recorded["keys"]), image_size=config.image_size) == config


@pytest.mark.goldens
def test_config_follows_from_the_keys(golden: Golden, training_checkpoint: Golden) -> None:
    model = strip_prefixes(read_checkpoint(training_checkpoint.weights)["model"])
    for state, settings in (
        (meta_state(golden.settings["keys"]), golden.settings),
        (model, training_checkpoint.settings),
    ):
        config = ncsnpp.NCSNppConfig.from_json(settings["config"])
        found = ncsnpp.infer_config(state, image_size=config.image_size)
        untold = {k: getattr(config, k) for k in ("fir", "skip_rescale", "sigma_min", "sigma_max")}
        assert replace(found, **untold) == config


@pytest.mark.goldens
def test_training_checkpoint_counts_by_its_ema(training_checkpoint: Golden) -> None:
    out, _ = record(
        network(training_checkpoint), (training_checkpoint.tensor("x"), training_checkpoint.tensor("t")), []
    )
    assert difference(out, training_checkpoint.arrays["out_ema"]) < TOLERANCE
    assert difference(out, training_checkpoint.arrays["out_raw_model_weights"]) > 1e-2
    loaded = load_diffusion("score-sde", training_checkpoint.weights)
    x, t = training_checkpoint.tensor("x"), training_checkpoint.tensor("t")
    with torch.no_grad():
        assert torch.equal(loaded.model(x, t), out)


@pytest.mark.goldens
def test_training_checkpoint_without_usable_ema_is_refused(training_checkpoint: Golden) -> None:
    content = dict(read_checkpoint(training_checkpoint.weights))
    with raises_code("E-ncsnpp-ema"):
        ncsnpp.from_checkpoint({k: v for k, v in content.items() if k != "ema"}, "c.pth")
    shadow = content["ema"]["shadow_params"]
    with raises_code("E-ncsnpp-ema-count"):
        ncsnpp.from_checkpoint(content | {"ema": {"shadow_params": shadow[:-1]}}, "c.pth")
    with raises_code("E-checkpoint-keys"):
        ncsnpp.from_checkpoint(content | {"ema": {"shadow_params": shadow[::-1]}}, "c.pth")
    with raises_code("E-ncsnpp-ema-model"):
        ncsnpp.from_checkpoint({k: v for k, v in content.items() if k != "model"}, "c.pth")


@pytest.mark.goldens
def test_exported_graph_agrees(golden: Golden, tmp_path: Path) -> None:
    inputs = (golden.tensor("x"), golden.tensor("t"))
    assert onnx_parity.deviation(network(golden), inputs, tmp_path / "unet.onnx") < TOLERANCE


@pytest.mark.parametrize("fir", [None, (1.0, 3.0, 3.0, 1.0)])
def test_ncsnpp_with_residual_input(fir: tuple[float, ...] | None, tmp_path: Path) -> None:
    config = replace(TINY, fir=fir, residual_input=True)
    net = ncsnpp.NCSNpp(config).eval()
    assert ncsnpp.infer_config(net.state_dict(), image_size=8) == config
    inputs = (torch.randn(2, 3, 8, 8), torch.tensor([0.5, 700.0]))
    if fir:
        assert onnx_parity.deviation(net, inputs, tmp_path / "unet.onnx") < TOLERANCE
    else:
        assert record(net, inputs, [])[0].shape == (2, 3, 8, 8)


@pytest.mark.parametrize("skip_rescale", [True, False])
def test_plain_state_dict_is_taken_as_it_is(skip_rescale: bool) -> None:
    net = ncsnpp.NCSNpp(replace(TINY, skip_rescale=skip_rescale)).eval()
    state = {f"module.{k}": v for k, v in net.state_dict().items() if k != "sigmas"}
    again = ncsnpp.from_checkpoint({"state_dict": state}, "c.pth", net.config)
    inputs = (torch.randn(2, 3, 8, 8), torch.tensor([3.0, 250.5]))
    assert torch.equal(record(again, inputs, [])[0], record(net, inputs, [])[0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("embedding_type", "fourier"),
        ("resblock_type", "ddpm"),
        ("progressive", "output_skip"),
        ("progressive_input", "input_skip"),
        ("nonlinearity", "elu"),
        ("scale_by_sigma", True),
        ("name", "ddpm"),
    ],
)
def test_other_score_sde_networks_are_refused(field: str, value: object) -> None:
    with raises_code("E-ncsnpp-config"):
        ncsnpp.NCSNppConfig.from_json({"data": {}, "model": {field: value}})


def filtered(x: NDArray[Any], taps: tuple[float, ...], up: bool) -> NDArray[Any]:
    """Upsampling (insert zeros, filter) or downsampling (filter, keep every second) of one image, by the definition."""
    line = np.array(taps) / sum(taps)
    n = len(taps)
    if up:
        wide = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
        wide[::2, ::2] = 4 * x
        x = np.pad(wide, (n // 2, n - 1 - n // 2))
    else:
        x = np.pad(x, ((n - 1) // 2, n - 1 - (n - 1) // 2))
    full = sum(
        line[i] * line[j] * x[i : x.shape[0] - n + 1 + i, j : x.shape[1] - n + 1 + j]
        for i in range(n)
        for j in range(n)
    )
    return full if up else full[::2, ::2]


@pytest.mark.parametrize("taps", [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0)])
def test_resampling_is_its_definition(taps: tuple[float, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 4))
    for change, up in ((upsample2, True), (downsample2, False)):
        wanted = np.array([[filtered(channel, taps, up) for channel in image] for image in x])
        assert difference(change(torch.tensor(x), taps), wanted) < 1e-6


def test_residual_input_filters_and_convolves_at_full_size_first() -> None:
    """As the original defines it: zeros around, convolution, filter, every second pixel."""
    layer = ncsnpp.ResidualInput(1, 1, (1.0, 3.0, 3.0, 1.0)).double()
    x = np.random.default_rng(1).standard_normal((6, 8))
    conv = layer.get_submodule("Conv2d_0")
    kernel = conv.weight.detach().numpy()[0, 0]
    padded = np.pad(x, 2)
    full = sum(kernel[i, j] * padded[i : i + 8, j : j + 10] for i in range(3) for j in range(3))
    line = np.array([1, 3, 3, 1]) / 8
    blurred = sum(line[i] * line[j] * full[i : i + 5, j : j + 7] for i in range(4) for j in range(4))
    with torch.no_grad():
        out = layer(torch.tensor(x)[None, None])[0, 0]
    assert difference(out, blurred[::2, ::2] + conv.bias.item()) < 1e-7
