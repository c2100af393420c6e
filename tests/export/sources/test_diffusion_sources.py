"""Every diffusion source and every parametrisation, from the file through the exported graph to epsilon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import model_folders
import network_goldens
import numpy as np
import pytest
import torch
from codes import raises_code
from edm_denoiser import EdmDenoiser
from goldens_path import goldens_dir
from safetensors.torch import save_file
from torch import Tensor

from edgepure.methods import UniformSpec
from edgepure.rows.execute import execute_row
from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec
from edgepure_export.graphs.step import LearnedStepModule, UnetModule
from edgepure_export.networks.edm import Preconditioning
from edgepure_export.networks.edm_unets import EdmUNetConfig, SongUNet
from edgepure_export.sources.random_weights import with_random_weights
from edgepure_export.sources.resolve import resolve_diffusion
from edgepure_export.sources.scheme import DiffusionSource

LINEAR = NoiseSchedule.linear()


def graph(source: DiffusionSource, x: Tensor, t: Tensor, folder: Path) -> np.ndarray[Any, Any]:
    """Epsilon of the exported graph for inputs of another batch size than the one it was traced with."""
    exported = model_folders.ExportedGraph(UnetModule(source.model), {"x": x, "t": t}, ["epsilon"], folder)
    return exported(x, t)[0]


def inputs(size: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((3, 3, size, size), generator=generator), torch.tensor([0.0, 123.0, 871.5])


GOLDENS = [
    ("guided-diffusion", "G8_unet_guided_diffusion", n)
    for n in network_goldens.names("G8_unet_guided_diffusion", "unet_*.safetensors")
]
GOLDENS += [("score-sde", "G9_unet_score_sde", n) for n in network_goldens.names("G9_unet_score_sde", "*.safetensors")]
GOLDENS += [("score-sde", "G9_unet_score_sde", n) for n in network_goldens.names("G9_unet_score_sde", "*.pt")]


@pytest.mark.goldens
@pytest.mark.parametrize(("scheme", "folder", "name"), GOLDENS, ids=[g[2] for g in GOLDENS])
def test_golden_networks_as_sources(scheme: str, folder: str, name: str, tmp_path: Path) -> None:
    """The original file and key names; tests/export/networks compares these networks' graphs with PyTorch."""
    golden = network_goldens.load(folder, name)
    source = resolve_diffusion(f"{scheme}:{golden.weights}")
    x, t = golden.tensor("x"), golden.tensor("t")
    wanted = golden.arrays["out" if "out" in golden.arrays else "out_ema"]
    with torch.no_grad():
        assert network_goldens.difference(source.model(x, t), wanted) <= network_goldens.TOLERANCE
    assert source.image == tuple(x.shape[1:])
    assert golden.weights.name in source.origin
    assert "sha256" in source.origin
    assert source.schedule == LINEAR.spec


@pytest.mark.goldens
def test_an_ema_checkpoint_through_the_exported_graph(tmp_path: Path) -> None:
    """Continuous time: the goldens' labels are no whole numbers."""
    golden = network_goldens.load("G9_unet_score_sde", "checkpoint_tiny")
    x, t = golden.tensor("x"), golden.tensor("t")
    got = graph(resolve_diffusion(f"score-sde:{golden.weights}"), x, t, tmp_path)
    assert np.abs(got - golden.arrays["out_ema"]).max() <= network_goldens.TOLERANCE


@pytest.mark.parametrize("precond", ["edm", "vp"])
def test_edm_files(precond: str, tmp_path: Path) -> None:
    """sigma of the bundle's schedule, not the index, reaches the network (G11's conversion)."""
    config = EdmUNetConfig(img_resolution=8, model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,))
    network = with_random_weights(lambda: SongUNet(config), seed=9)
    save_file({f"model.{k}": v for k, v in network.state_dict().items()}, tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text(json.dumps({"precond": precond, "model_type": "SongUNet"}))
    source = resolve_diffusion(f"edm:{tmp_path / 'net.safetensors'}")
    x, t = inputs()
    t = t.round()
    got = graph(source, x, t, tmp_path)
    abar = torch.tensor([LINEAR.alpha_bar(int(v)) for v in t], dtype=torch.float64)[:, None, None, None]
    sigma = ((1 - abar) / abar).sqrt().float()
    with torch.no_grad():
        denoised = EdmDenoiser(network, Preconditioning(precond))(x / abar.sqrt().float(), sigma.flatten()).double()  # type: ignore[arg-type]
    wanted = (x - abar.sqrt() * denoised) / (1 - abar).sqrt()
    # At t = 0 the textbook formula subtracts two nearly equal images; ours does not.
    np.testing.assert_allclose(got[1:], wanted[1:].numpy(), atol=2e-5)
    np.testing.assert_allclose(got[0], wanted[0].numpy(), atol=1e-3)
    assert source.image == (3, 8, 8)


@pytest.mark.parametrize(
    ("prediction", "schedule", "exported"),
    [
        ("epsilon", {"beta_schedule": "linear"}, True),
        ("v_prediction", {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.012}, True),
        ("sample", {"beta_schedule": "squaredcos_cap_v2"}, True),
        ("epsilon", {"trained_betas": [0.001 * (1 + i / 50) for i in range(100)]}, False),
        ("v_prediction", {"beta_schedule": "sigmoid", "num_train_timesteps": 300}, False),
    ],
    ids=["epsilon", "v", "x0-cosine", "betas", "v-sigmoid"],
)
def test_diffusers_schedulers(prediction: str, schedule: dict[str, Any], exported: bool, tmp_path: Path) -> None:
    """Called with the index of a foreign schedule that has the same noise level; checked against the library."""
    from diffusers import DDPMScheduler

    settings = {"prediction_type": prediction, **schedule}
    network = model_folders.diffusers_unet()
    folder = model_folders.diffusers_folder(tmp_path / "model", network, pipeline=prediction == "sample", **settings)
    library = DDPMScheduler(**settings)
    theirs = library.alphas_cumprod.double()
    last = len(theirs) - 1
    # The runtime's own schedule is made of three of theirs, so that every index has an exact partner.
    chosen = torch.tensor([last // 20, last // 3, last - last // 10])
    levels = theirs[chosen]
    betas = 1 - levels / torch.cat([torch.ones(1, dtype=torch.float64), levels[:-1]])
    runtime = ScheduleSpec(kind="betas", timesteps=3, betas=tuple(betas.tolist())).build()
    source = resolve_diffusion(f"diffusers:{folder}", schedule=runtime)
    x, _ = inputs()
    with torch.no_grad():
        raw = network(x, chosen.float()).sample
    a, s = levels.sqrt()[:, None, None, None].float(), (1 - levels).sqrt()[:, None, None, None].float()
    wanted = {"epsilon": raw, "v_prediction": a * raw + s * x, "sample": (x - a * raw) / s}[prediction]
    t = torch.arange(3.0)
    got = graph(source, x, t, tmp_path) if exported else source.model(x, t).detach().numpy()
    # x0 is divided by sqrt(1 - alpha_bar), and rounding errors with it.
    np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4 if prediction == "sample" else 2e-5)
    assert source.image == (3, 8, 8)


def test_a_diffusers_network_with_learned_variance(tmp_path: Path) -> None:
    network = model_folders.diffusers_unet(out_channels=6)
    folder = model_folders.diffusers_folder(tmp_path, network, variance_type="learned_range", prediction_type="sample")
    source = resolve_diffusion(f"diffusers:{folder}")
    x, t = inputs()
    with torch.no_grad():
        raw, converted = network(x, t).sample, source.model(x, t)
    assert converted.shape[1] == 6
    torch.testing.assert_close(converted[:, 3:], raw[:, 3:])
    assert not torch.allclose(converted[:, :3], raw[:, :3], atol=1e-2)


def test_a_learned_variance_through_the_exported_step(tmp_path: Path) -> None:
    """Against the row's equations in NumPy around the library's own network."""
    network = model_folders.diffusers_unet(out_channels=6)
    folder = model_folders.diffusers_folder(tmp_path / "model", network, variance_type="learned_range")
    source = resolve_diffusion(f"diffusers:{folder}")
    spec = UniformSpec(t_star=600, steps=3, variance="learned")
    plan = spec.compile(LINEAR, 3 * 8 * 8)
    x, _ = inputs()
    given = {name: inputs(seed=seed)[0] for seed, name in enumerate(("ref", "noise", "noise_out"), start=1)}
    mask = (torch.arange(64.0).reshape(1, 1, 8, 8) < 24).float().repeat(3, 1, 1, 1)
    coeffs = torch.from_numpy(plan.coeffs[[0, 1, 2]])
    step = {
        "x": x,
        "ref": given["ref"],
        "noise": given["noise"],
        "mask": mask,
        "coeffs": coeffs,
        "noise_out": given["noise_out"],
    }
    exported = model_folders.ExportedGraph(LearnedStepModule(source.model), step, ["x_next"], tmp_path)

    def epsilon(z: np.ndarray[Any, Any], t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            return network(torch.from_numpy(z), torch.from_numpy(t)).sample.numpy()  # type: ignore[no-any-return]

    arrays = {name: tensor.numpy() for name, tensor in step.items()}
    wanted = execute_row(epsilon, **arrays)
    np.testing.assert_allclose(exported(*step.values())[0], wanted, atol=2e-5)
    # the variance channels and their noise count
    quiet = execute_row(epsilon, **{**arrays, "noise_out": np.zeros_like(arrays["noise_out"])})
    assert np.abs(wanted - quiet).max() > 0.01


OLD_NAMES = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."))


def test_folders_with_the_attention_names_of_old_releases(tmp_path: Path) -> None:
    network = model_folders.diffusers_unet()
    folder = model_folders.diffusers_folder(tmp_path, network)
    old = {}
    for key, value in network.state_dict().items():
        if "attentions" in key:
            for new, was in OLD_NAMES:
                key = key.replace(new, was)
        old[key] = value.clone()
    assert set(old) != set(network.state_dict())
    save_file(old, folder / "diffusion_pytorch_model.safetensors")
    x, t = inputs()
    with torch.no_grad():
        torch.testing.assert_close(resolve_diffusion(f"diffusers:{folder}").model(x, t), network(x, t).sample)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "E-source-unet"),
        ({"num_class_embeds": 10}, "E-source-conditional"),
    ],
)
def test_other_diffusers_networks_are_refused(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    folder = model_folders.diffusers_folder(tmp_path, model_folders.diffusers_unet())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with raises_code(code):
        resolve_diffusion(f"diffusers:{folder}")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"prediction_type": "flow"}, "E-source-prediction"),
        ({"beta_schedule": "karras"}, "E-source-beta-schedule"),
        ({"rescale_betas_zero_snr": True}, "E-source-terminal-snr"),
    ],
)
def test_schedulers_without_a_vp_schedule_are_refused(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    folder = model_folders.diffusers_folder(tmp_path, model_folders.diffusers_unet())
    config = json.loads((folder / "scheduler_config.json").read_text())
    (folder / "scheduler_config.json").write_text(json.dumps({**config, **change}))
    with raises_code(code):
        resolve_diffusion(f"diffusers:{folder}")


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("config.json", "E-source-config-missing"),
        ("scheduler_config.json", "E-source-schedule-missing"),
        ("diffusion_pytorch_model.safetensors", "E-source-weights-missing"),
    ],
)
def test_incomplete_diffusers_folders_are_refused(missing: str, code: str, tmp_path: Path) -> None:
    folder = model_folders.diffusers_folder(tmp_path, model_folders.diffusers_unet())
    (folder / missing).unlink()
    with raises_code(code) as caught:
        resolve_diffusion(f"diffusers:{folder}")
    assert missing in str(caught.value)


def test_random_weights_of_a_published_architecture() -> None:
    text = "edm:cifar10-32x32-uncond-vp?weights=random"
    source = resolve_diffusion(text)
    assert source.untrained
    assert source.origin == text
    assert source.image == (3, 32, 32)
    assert round(sum(p.numel() for p in source.model.parameters()) / 1e6, 1) == 55.7
    for parameter in source.model.parameters():
        assert parameter.numel() == 1 or float(parameter.std()) > 0, "a constant weight hides errors"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("guided-diffusion:no-such-network?weights=random", "E-source-architecture"),
        ("score-sde:cifar10?weights=random", "E-source-architecture"),
        ("score-sde:file.pth?weights=other.pth", "E-source-weights-twice"),
        ("guided-diffusion:no/such/file.pt", "E-checkpoint-missing"),
        ("guided-diffusion:file.pt?colour=red", "E-source-option-unknown"),
        ("guided-diffusion:file.pt?preset", "E-source-options"),
        ("edm:file.pt?preset=a&preset=b", "E-source-options"),
    ],
)
def test_what_a_source_text_cannot_say(text: str, code: str) -> None:
    with raises_code(code):
        resolve_diffusion(text)


def test_a_file_with_a_question_mark_in_its_name(tmp_path: Path) -> None:
    golden = goldens_dir() / "G9_unet_score_sde"
    odd = tmp_path / "what?.safetensors"
    odd.symlink_to(next(golden.glob("*.safetensors")).resolve())
    assert resolve_diffusion(f"score-sde:{odd}").image is not None


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"block_out_channels": ["a", "b"]}),
        ("config.json", {"block_out_channels": []}),
        ("config.json", {"down_block_types": ["os.system"]}),
        ("config.json", {"sample_size": [1, 2, 3]}),
        ("config.json", {"norm_num_groups": 0}),
        ("scheduler_config.json", {"num_train_timesteps": "many"}),
        ("scheduler_config.json", {"trained_betas": [2.0, None]}),
        ("scheduler_config.json", {"beta_start": -1.0}),
    ],
)
def test_json_files_that_describe_no_network_are_one_sentence(
    tmp_path: Path, file: str, changes: dict[str, object]
) -> None:
    folder = model_folders.diffusers_folder(tmp_path, model_folders.diffusers_unet())
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with raises_code("E-source-config") as caught:
        resolve_diffusion(f"diffusers:{folder}")
    assert "\n" not in str(caught.value)
