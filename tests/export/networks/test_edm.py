"""EDM preconditioning (goldens G11), and its UNets through the networks that they re-implement (goldens G8 and G9)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_parity
import onnxruntime as ort
import pytest
import torch
from codes import raises_code
from edm_denoiser import EdmDenoiser
from goldens_path import goldens_dir
from network_goldens import TOLERANCE, difference, load, names, record
from numpy.typing import NDArray
from torch import Tensor, nn

from edgepure_export.networks import edm, guided_diffusion, ncsnpp
from edgepure_export.networks.checkpoints import read_checkpoint
from edgepure_export.networks.edm_unets import DhariwalUNet, EdmUNetConfig, SongUNet, infer_config
from edgepure_export.networks.load import load_diffusion
from edgepure_export.networks.parametrisation import to_epsilon

FOLDER = "G11_edm"
SONG = EdmUNetConfig(img_resolution=8, model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,))
NCSN = EdmUNetConfig(
    img_resolution=8,
    model_channels=8,
    channel_mult=(1, 2),
    num_blocks=1,
    attn_resolutions=(4,),
    augment_dim=9,
    channel_mult_noise=2,
    embedding_type="fourier",
    encoder_type="residual",
    resample_filter=(1, 3, 3, 1),
)
ADM = EdmUNetConfig(img_resolution=8, model_channels=64, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,))


@pytest.fixture
def arrays() -> dict[str, NDArray[np.float64]]:
    with np.load(goldens_dir() / FOLDER / "edm_precond.npz") as recorded:
        return dict(recorded)


def preconditioning(kind: str, arrays: dict[str, NDArray[np.float64]]) -> edm.Preconditioning:
    meta = json.loads((goldens_dir() / FOLDER / "meta.json").read_text())
    return edm.Preconditioning.from_config(
        {
            "precond": kind,
            "sigma_data": float(arrays["sigma_data"]),
            **{k: meta[k] for k in ("beta_d", "beta_min", "M")},
        }
    )


class Recorded(nn.Module):
    """Stands for the raw network: checks what it is called with, answers what was recorded."""

    def __init__(self, x: NDArray[np.float64], label: NDArray[np.float64], answer: NDArray[np.float64]) -> None:
        super().__init__()
        self.x, self.label, self.answer = x, label, torch.tensor(answer, dtype=torch.float32)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        np.testing.assert_allclose(x.numpy(), self.x, rtol=2e-6, atol=TOLERANCE)
        # The original's float32 label under VP preconditioning suffers cancellation at small noise: off by 1e-4.
        np.testing.assert_allclose(label.numpy(), self.label, rtol=2e-6, atol=2e-4)
        return self.answer


def raw_edm(a: dict[str, NDArray[np.float64]]) -> Recorded:
    """The raw network F behind the recorded denoised images."""
    sigma, sd = a["sigma"][:, None, None, None], float(a["sigma_data"])
    skip, out = sd**2 / (sigma**2 + sd**2), sigma * sd / np.sqrt(sigma**2 + sd**2)
    return Recorded(a["net_input"], a["c_noise"], (a["D"] - skip * a["x_edm"]) / out)


@pytest.mark.goldens
def test_denoiser_is_the_original_one(arrays: dict[str, NDArray[np.float64]]) -> None:
    x, sigma = torch.tensor(arrays["x_edm"]), torch.tensor(arrays["sigma"], dtype=torch.float32)
    denoiser = EdmDenoiser(raw_edm(arrays), preconditioning("edm", arrays))
    assert difference(denoiser(x, sigma), arrays["D"]) < TOLERANCE
    x_t = x / torch.sqrt(1 + sigma**2)[:, None, None, None]  # VP preconditioning scales its input to the VP image
    raw = Recorded(x_t.numpy(), arrays["vp_sigma_inv_c_noise"], arrays["vp_F"])
    denoiser = EdmDenoiser(raw, preconditioning("vp", arrays))
    np.testing.assert_allclose(denoiser(x, sigma).numpy(), arrays["vp_D"], rtol=2e-6, atol=TOLERANCE)


@pytest.mark.goldens
def test_epsilon_of_the_raw_network(arrays: dict[str, NDArray[np.float64]]) -> None:
    x, t = torch.tensor(arrays["x_t"]), torch.tensor(arrays["timesteps"], dtype=torch.float32)
    model = edm.EdmEpsilon(raw_edm(arrays), preconditioning("edm", arrays))
    assert difference(model(x, t), arrays["eps_from_D"]) < TOLERANCE
    raw = Recorded(arrays["x_t"], arrays["vp_sigma_inv_c_noise"], arrays["vp_F"])
    model = edm.EdmEpsilon(raw, preconditioning("vp", arrays))
    assert difference(model(x, t), arrays["vp_F"]) == 0.0


@pytest.mark.goldens
def test_epsilon_of_a_denoiser(arrays: dict[str, NDArray[np.float64]]) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(goldens_dir() / FOLDER / "tiny_edm_denoiser.onnx", options)

    class Denoiser(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return torch.tensor(session.run(None, {"x": x.numpy(), "sigma": sigma.numpy()})[0])

    x, t = torch.tensor(arrays["x_t"]), torch.tensor(arrays["timesteps"], dtype=torch.float32)
    assert difference(to_epsilon(Denoiser(), "denoiser")(x, t), arrays["eps_from_D"]) < TOLERANCE


@pytest.mark.parametrize("kind", ["edm", "vp", "ve"])
def test_both_ways_to_epsilon_agree(kind: str) -> None:
    """D as table 1 of the paper has it, then (x - D) / sigma in float64, against the closed form in float32."""
    torch.manual_seed(0)
    raw = nn.Conv2d(3, 3, 3, padding=1)

    class Net(nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return raw.to(x.dtype)(x) * torch.cos(label)[:, None, None, None]

    precond = edm.Preconditioning.from_config({"precond": kind})
    t = torch.tensor([0.0, 1.0, 10.0, 200.0, 999.0])
    model = edm.EdmEpsilon(Net(), precond)
    x = torch.randn(5, 3, 4, 4)
    with torch.no_grad():
        got = model(x, t)
        _, _, sigma = model.levels(t)
        sigma = sigma.double()
        x_edm = x.double() * torch.sqrt(1 + sigma**2)
        skip, out = precond.outputs(sigma)
        c_in, label = precond.inputs(sigma)
        denoised = skip * x_edm + out * Net()(c_in * x_edm, label.flatten())
        assert torch.allclose(got.double(), (x_edm - denoised) / sigma, atol=2e-5)


def song_from_ncsnpp(net: ncsnpp.NCSNpp, song: SongUNet) -> dict[str, Tensor]:
    """The weights of a DDPM++/NCSN++ network under SongUNet's names."""
    state = {k: v for k, v in song.state_dict().items() if k.endswith("resample_filter")}
    modules, queue = net.all_modules, [i for kind, i in net.program if i >= 0]

    def copy(name: str, module: nn.Module) -> None:
        state.update({f"{name}.{k}": v for k, v in module.state_dict().items()})

    for name, i in (("map_layer0", 0), ("map_layer1", 1), (next(f"enc.{n}" for n in song.enc), 2)):
        copy(name, modules[i])
    *blocks, norm, conv = [n for n, _ in [*song.enc.named_children()][1:]] + [*song.dec]
    sides = ["enc"] * (len(song.enc) - 1) + ["dec"] * (len(song.dec) - 2)
    for side, block in zip(sides, blocks, strict=True):
        source, name = modules[queue.pop(0)], f"{side}.{block}"
        if isinstance(source, ncsnpp.ResidualInput):
            copy(name, source.get_submodule(source.name))
            continue
        pairs = {
            "norm0": "GroupNorm_0",
            "conv0": "Conv_0",
            "affine": "Dense_0",
            "norm1": "GroupNorm_1",
            "conv1": "Conv_1",
            "skip": "Conv_2",
        }
        for ours, theirs in pairs.items():
            if getattr(source, theirs) is not None:
                copy(f"{name}.{ours}", getattr(source, theirs))
        if f"{name}.qkv.weight" in song.state_dict():
            attention = modules[queue.pop(0)]
            copy(f"{name}.norm2", attention.GroupNorm_0)
            q, k, v, out = (getattr(attention, f"NIN_{j}") for j in range(4))
            state[f"{name}.qkv.weight"] = torch.stack([n.W.T for n in (q, k, v)], 1).flatten(0, 1)[..., None, None]
            state[f"{name}.qkv.bias"] = torch.stack([n.b for n in (q, k, v)], 1).flatten()
            state[f"{name}.proj.weight"], state[f"{name}.proj.bias"] = out.W.T[..., None, None], out.b
    assert not queue
    copy(f"dec.{norm}", modules[-2])
    copy(f"dec.{conv}", modules[-1])
    return state


def song_config(config: ncsnpp.NCSNppConfig) -> EdmUNetConfig:
    return EdmUNetConfig(
        img_resolution=config.image_size,
        model_channels=config.nf,
        channel_mult=config.ch_mult,
        num_blocks=config.num_res_blocks,
        attn_resolutions=tuple(config.image_size >> n for n in config.attention_levels),
        encoder_type="residual" if config.residual_input else "standard",
        resample_filter=(1, 3, 3, 1) if config.fir else (1, 1),
    )


@pytest.mark.goldens
@pytest.mark.parametrize("name", names("G9_unet_score_sde", "ncsnpp_*.safetensors"))
def test_song_unet_is_the_original_ddpmpp(name: str, tmp_path: Path) -> None:
    golden = load("G9_unet_score_sde", name)
    config = ncsnpp.NCSNppConfig.from_json(golden.settings["config"])
    net = ncsnpp.from_checkpoint(read_checkpoint(golden.weights), name, config)
    song = SongUNet(song_config(config))
    state = song_from_ncsnpp(net, song)
    torch.save({f"model.{k}": v.clone() for k, v in state.items()}, tmp_path / "song.pt")
    loaded = load_diffusion("edm", tmp_path / "song.pt", settings={"precond": "vp", "model_type": "SongUNet"})
    out, _ = record(loaded.network, (golden.tensor("x"), golden.tensor("t")), [])
    assert difference(out, golden.arrays["out"]) < TOLERANCE


def test_song_unet_is_ncsnpp_with_filter_and_residual_input() -> None:
    config = ncsnpp.NCSNppConfig(
        nf=8, ch_mult=(1, 2, 2), num_res_blocks=1, image_size=16, fir=(1.0, 3.0, 3.0, 1.0), residual_input=True
    )
    torch.manual_seed(0)
    net = ncsnpp.NCSNpp(config).eval()
    song = SongUNet(song_config(config)).eval()
    song.load_state_dict(song_from_ncsnpp(net, song))
    inputs = (torch.randn(2, 3, 16, 16), torch.tensor([1.0, 600.0]))
    wanted, _ = record(net, inputs, [])
    assert wanted.abs().max() > 0.1
    assert difference(record(song, inputs, [])[0], wanted.double().numpy()) < TOLERANCE


def test_dhariwal_unet_is_the_guided_diffusion_unet() -> None:
    """128 channels and more: below, the two repositories choose other numbers of groups."""
    torch.manual_seed(0)
    flags = guided_diffusion.GuidedDiffusionConfig(
        image_size=8,
        num_channels=128,
        num_res_blocks=1,
        channel_mult=(1, 2),
        attention_factors=(2,),
        num_head_channels=64,
        resblock_updown=True,
    )
    net = guided_diffusion.GuidedDiffusionUNet(flags).eval()
    config = EdmUNetConfig(
        img_resolution=8, model_channels=128, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,)
    )
    dhariwal = DhariwalUNet(config).eval()
    state = {k: v for k, v in dhariwal.state_dict().items() if k.endswith("resample_filter")}
    layers = {
        "norm0": "in_layers.0",
        "conv0": "in_layers.2",
        "affine": "emb_layers.1",
        "norm1": "out_layers.0",
        "conv1": "out_layers.3",
        "skip": "skip_connection",
    }

    def copy(name: str, module: nn.Module) -> None:
        state.update({f"{name}.{k}": v for k, v in module.state_dict().items()})

    def copy_block(name: str, source: nn.Module) -> None:
        for ours, theirs in layers.items():
            copy(f"{name}.{ours}", source.get_submodule(theirs))

    def copy_attention(name: str, source: guided_diffusion.AttentionBlock) -> None:
        copy(f"{name}.norm2", source.norm)
        for key in ("weight", "bias"):  # [heads, 3, d] -> [heads, d, 3]
            value = getattr(source.qkv, key)
            value = value.unflatten(0, (source.heads, 3, -1)).transpose(1, 2).reshape(value.shape)
            state[f"{name}.qkv.{key}"] = value[..., None] if key == "weight" else value
        state[f"{name}.proj.weight"], state[f"{name}.proj.bias"] = (
            source.proj_out.weight[..., None],
            source.proj_out.bias,
        )

    copy("map_layer0", net.time_embed[0])
    copy("map_layer1", net.time_embed[2])
    copy("enc.8x8_conv", net.input_blocks[0][0])
    queue = [m for stage in (*net.input_blocks[1:], net.middle_block, *net.output_blocks) for m in stage]
    for name in [f"enc.{n}" for n in [*dhariwal.enc][1:]] + [f"dec.{n}" for n in dhariwal.dec]:
        copy_block(name, queue.pop(0))
        if f"{name}.qkv.weight" in dhariwal.state_dict():
            copy_attention(name, queue.pop(0))
    assert not queue
    copy("out_norm", net.out[0])
    copy("out_conv", net.out[2])
    state = {k: v for k, v in state.items() if k in dhariwal.state_dict()}  # identity skips have no weights
    loaded, _ = edm.from_state_dict(state)
    inputs = (torch.randn(2, 3, 8, 8), torch.tensor([0.25, 600.0]))
    wanted, _ = record(net, inputs, [])
    assert wanted.abs().max() > 0.1
    assert difference(record(loaded, inputs, [])[0], wanted.double().numpy()) < TOLERANCE


@pytest.mark.parametrize(("kind", "config"), [(SongUNet, SONG), (SongUNet, NCSN), (DhariwalUNet, ADM)])
def test_shape_follows_from_the_keys(kind: type[SongUNet] | type[DhariwalUNet], config: EdmUNetConfig) -> None:
    net = kind(config).eval()
    assert infer_config(net.state_dict()) == (kind, config)
    loaded, _ = edm.from_state_dict({f"model.{k}": v for k, v in net.state_dict().items()})
    inputs = (torch.randn(2, 3, 8, 8), torch.tensor([-1.0, 0.5]))
    assert torch.equal(record(loaded, inputs, [])[0], record(net, inputs, [])[0])


@pytest.mark.parametrize(("kind", "config"), [(SongUNet, NCSN), (DhariwalUNet, ADM)])
def test_exported_graph_agrees(
    kind: type[SongUNet] | type[DhariwalUNet], config: EdmUNetConfig, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    loaded, precond = edm.from_state_dict(kind(config).state_dict())
    inputs = (torch.randn(2, 3, 8, 8), torch.tensor([3.0, 500.5]))
    model = edm.EdmEpsilon(loaded, precond).eval()
    assert onnx_parity.deviation(model, inputs, tmp_path / "unet.onnx") < TOLERANCE


def test_published_cifar10_network_has_its_known_size() -> None:
    """The paper's CIFAR-10 DDPM++ has 55.7 million parameters, its ImageNet-64 ADM without classes 295 million."""
    cifar = EdmUNetConfig(img_resolution=32, augment_dim=9)
    imagenet = EdmUNetConfig(
        img_resolution=64, model_channels=192, channel_mult=(1, 2, 3, 4), num_blocks=3, attn_resolutions=(32, 16, 8)
    )
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in kind(c).parameters()) for kind, c in ((SongUNet, cifar), (DhariwalUNet, imagenet))
        ]
    assert [round(n / 1e5) / 10 for n in sizes] == [55.7, 295.1]


def test_what_cannot_be_used_is_refused() -> None:
    state = SongUNet(SONG).state_dict()
    with raises_code("E-checkpoint-conditional"):
        edm.from_state_dict(state | {"map_label.weight": torch.zeros(8, 10)})
    with raises_code("E-edm-preconditioning"):
        edm.from_state_dict({"model." + k: v for k, v in state.items()} | {"u": torch.zeros(1001)})
    with raises_code("E-edm-preconditioning"):
        edm.from_state_dict(state, config={"precond": "flow"})
    with raises_code("E-edm-config"):
        edm.from_state_dict(state, config={"num_blocks": 4})
    with raises_code("E-checkpoint-conditional"):
        edm.from_state_dict(state, config={"label_dim": 10})
    with raises_code("E-checkpoint-keys"):
        edm.from_state_dict({k: v for k, v in state.items() if k != "map_layer1.bias"})
    with raises_code("E-checkpoint-incomplete"):
        edm.from_state_dict({k: v for k, v in state.items() if "aux_conv" not in k})
    with raises_code("E-edm-resampling"):
        edm.from_state_dict({k: v * 2 if "filter" in k else v for k, v in state.items()})


def test_config_inside_the_file_or_beside_it(tmp_path: Path) -> None:
    state = SongUNet(SONG).state_dict()
    torch.save({"state_dict": state, "config": {"precond": "VPPrecond", "img_resolution": 8}}, tmp_path / "a.pt")
    assert load_diffusion("edm", tmp_path / "a.pt").model.precond.kind == "vp"
    torch.save(state, tmp_path / "b.pt")
    assert load_diffusion("edm", tmp_path / "b.pt").model.precond.kind == "edm"
    (tmp_path / "b.json").write_text('{"precond": "ve"}')
    assert load_diffusion("edm", tmp_path / "b.pt").model.precond.kind == "ve"
    (tmp_path / "b.json").write_text("{")
    with raises_code("E-checkpoint-settings-json"):
        load_diffusion("edm", tmp_path / "b.pt")
