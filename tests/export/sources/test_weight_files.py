"""Weights as people have them: shards, variants, averaged beside raw ones, prefixes of wrappers, old counters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import model_folders
import pytest
import torch
from codes import raises_code
from safetensors.torch import load_file as load_safetensors
from safetensors.torch import save_file
from torch import Tensor, nn

from edgepure_export.networks.checkpoints import read_checkpoint
from edgepure_export.networks.weights import load_weights, state_dict_from
from edgepure_export.sources.folder_weights import find_weights
from edgepure_export.sources.resolve import resolve_diffusion
from edgepure_export.sources.scheme import SourceText, load_file, origin_of

SOURCE = SourceText("diffusers:x", "diffusers", "x", {})


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))


STATE = {k: v + 0.25 if v.is_floating_point() else v for k, v in net().state_dict().items()}
AVERAGED = {k: v + 0.5 if v.is_floating_point() else v for k, v in STATE.items()}


def loaded(content: Any, tmp_path: Path, entry: str | None = None) -> dict[str, Tensor]:
    torch.save(content, tmp_path / "net.pt")
    network = net()
    load_file(network, tmp_path / "net.pt", entry)
    return network.state_dict()


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return all(torch.equal(found[k], v) for k, v in wanted.items() if "num_batches" not in k)


@pytest.mark.parametrize(
    "content",
    [
        {f"module.{k}": v for k, v in STATE.items()},
        {f"_orig_mod.{k}": v for k, v in STATE.items()},
        {f"_orig_mod.module.{k}": v for k, v in STATE.items()},
        {f"module._orig_mod.{k}": v for k, v in STATE.items()},
        {k.replace("2.", "2._orig_mod.", 1) if k.startswith("2.") else k: v for k, v in STATE.items()},
        {"state_dict": {f"net.{k}": v for k, v in STATE.items()}},
        {"state_dict": {f"classifier_of_mine.{k}": v for k, v in STATE.items()}},
        {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in STATE.items()}},
        {k: v for k, v in STATE.items() if "num_batches_tracked" not in k},
        {"my_weights": STATE, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        {"model": STATE, "ema_decay": 0.99, "best_ema_accuracy": 0.7},
    ],
)
def test_what_wrappers_do_to_names(content: Any, tmp_path: Path) -> None:
    assert same(loaded(content, tmp_path), STATE)


@pytest.mark.parametrize(
    ("content", "raw", "averaged"),
    [
        ({"state_dict": STATE, "state_dict_ema": AVERAGED, "epoch": 3}, "state_dict", "state_dict_ema"),
        ({"model": STATE, "model_ema": AVERAGED}, "model", "model_ema"),
        ({"model": STATE, "ema": AVERAGED}, "model", "ema"),
        ({"model": STATE, "ema": {"decay": 0.9, "module": AVERAGED}}, "model", "ema.module"),
        ({"net": STATE, "swa_state": AVERAGED}, "net", "swa_state"),
        (
            {
                **{f"online_model.{k}": v for k, v in STATE.items()},
                **{f"ema_model.{k}": v for k, v in AVERAGED.items()},
            },
            "online_model",
            "ema_model",
        ),
    ],
)
def test_averaged_weights_beside_raw_ones_are_a_choice(content: Any, raw: str, averaged: str, tmp_path: Path) -> None:
    with raises_code("E-checkpoint-entries") as caught:
        loaded(content, tmp_path)
    assert "?entry=" in str(caught.value)
    assert same(loaded(content, tmp_path, raw), STATE)
    assert same(loaded(content, tmp_path, averaged), AVERAGED)
    with raises_code("E-checkpoint-entry"):
        loaded(content, tmp_path, "nothing")


def test_a_list_of_averaged_tensors_beside_raw_weights(tmp_path: Path) -> None:
    content = {"model": STATE, "ema": {"decay": 0.9, "shadow_params": [v + 1.0 for v in STATE.values()]}}
    with raises_code("E-checkpoint-entries"):
        loaded(content, tmp_path)
    assert same(loaded(content, tmp_path, "model"), STATE)


def test_missing_and_unknown_keys_are_still_listed() -> None:
    state = {k: v for k, v in STATE.items() if k != "0.bias"} | {"3.weight": torch.ones(1)}
    with raises_code("E-checkpoint-keys") as caught:
        load_weights(net(), state, "net.pt")
    assert "1 missing: 0.bias" in str(caught.value) and "1 unknown: 3.weight" in str(caught.value)


def test_a_module_whose_own_names_begin_like_a_wrapper(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = net()

    network = Wrapped()
    state = {f"model.{k}": v for k, v in STATE.items()}
    torch.save(state, tmp_path / "net.pt")
    load_file(network, tmp_path / "net.pt")
    assert same(network.state_dict(), state)


def sharded(folder: Path, name: str = "model.safetensors") -> Path:
    keys = list(STATE)
    shards = {f"part-{i + 1:05}-of-00002.safetensors": keys[i::2] for i in range(2)}
    for file, mine in shards.items():
        save_file({k: STATE[k] for k in mine}, folder / file)
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {k: f for f, mine in shards.items() for k in mine}}))
    return index


def test_shards_and_their_index(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    assert same(state_dict_from(read_checkpoint(index), "x"), STATE)
    network = net()
    load_file(network, index)
    assert same(network.state_dict(), STATE)
    assert find_weights(tmp_path, ("model.safetensors",), SOURCE).files == tuple(sorted(tmp_path.glob("part-*")))
    content = json.loads(index.read_text())
    next(tmp_path.glob("part-00002*")).unlink()
    with raises_code("E-checkpoint-shard-missing") as caught:
        read_checkpoint(index)
    assert "part-00002-of-00002.safetensors is not beside it" in str(caught.value)
    for bad, code in (
        ({"weight_map": {"a": "../other.safetensors"}}, "E-checkpoint-shards"),
        ({"weight_map": {"a": "x" * 300}}, "E-checkpoint-shards"),
        ({"weight_map": {"a": "part\n"}}, "E-checkpoint-shards"),
        ({"weight_map": {"a": 10**300}}, "E-checkpoint-shards"),
        ({"weight_map": {"a": ["part"]}}, "E-checkpoint-index"),
        ({"weight_map": {}}, "E-checkpoint-shards"),
        ({"weights": content}, "E-checkpoint-index"),
        ([], "E-checkpoint-index"),
    ):
        index.write_text(json.dumps(bad))
        with raises_code(code):
            read_checkpoint(index)


def test_variants(tmp_path: Path) -> None:
    names = ("model.safetensors", "pytorch_model.bin")

    def found(entry: str | None = None) -> str:
        return find_weights(tmp_path, names, SOURCE, entry).file.name

    with raises_code("E-source-weights-missing"):
        found()
    (tmp_path / "model.fp16.safetensors").touch()
    assert found() == "model.fp16.safetensors"
    (tmp_path / "model.bf16.safetensors").touch()
    with raises_code("E-source-weights-kind"):
        found()
    assert found("bf16") == "model.bf16.safetensors"
    (tmp_path / "model.safetensors").touch()
    assert found() == "model.safetensors"
    (tmp_path / "model.ema.safetensors").touch()
    with raises_code("E-source-entries"):
        found()
    assert found("ema") == "model.ema.safetensors"
    with raises_code("E-source-variant"):
        found("fp8")


@pytest.mark.parametrize("how", ["whole", "shards", "variant", "sharded variant", "pickle"])
def test_diffusers_folders(how: str, tmp_path: Path) -> None:
    network = model_folders.diffusers_unet()
    folder = model_folders.diffusers_folder(tmp_path, network, pipeline=True)
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    variant = {"variant": "fp16"} if "variant" in how else {}
    size = {"max_shard_size": "20KB"} if "shard" in how else {}
    network.save_pretrained(unet, safe_serialization=how != "pickle", **variant, **size)  # type: ignore[operator]
    assert (len(list(unet.iterdir())) > 3) == ("shard" in how)
    source = resolve_diffusion(f"diffusers:{folder}")
    assert source.network is not None
    for key, value in network.state_dict().items():
        assert torch.equal(source.network.state_dict()[key], value)
    assert "(sha256 " in source.origin and str(tmp_path.parent) not in source.origin


def test_raw_and_averaged_unets_side_by_side(tmp_path: Path) -> None:
    folder = model_folders.diffusers_folder(tmp_path, model_folders.diffusers_unet(), pipeline=True)
    averaged = model_folders.diffusers_unet()
    with torch.no_grad():
        averaged.conv_in.bias.add_(1.0)  # type: ignore[union-attr, operator]
    averaged.save_pretrained(folder / "unet_ema")  # type: ignore[operator]
    with raises_code("E-source-entries"):
        resolve_diffusion(f"diffusers:{folder}")
    for entry, raw in (("unet", True), ("unet_ema", False)):
        found = resolve_diffusion(f"diffusers:{folder}?entry={entry}").network
        assert found is not None
        assert torch.equal(found.conv_in.bias, averaged.conv_in.bias) is not raw  # type: ignore[union-attr, arg-type]


def test_a_bare_unet_needs_to_be_told_its_schedule(tmp_path: Path) -> None:
    from edgepure.rows.schedule import NoiseSchedule

    network = model_folders.diffusers_unet()
    network.save_pretrained(tmp_path)  # type: ignore[operator]
    with raises_code("E-source-schedule-missing") as caught:
        resolve_diffusion(f"diffusers:{tmp_path}")
    assert "--schedule linear" in str(caught.value)
    source = resolve_diffusion(f"diffusers:{tmp_path}", schedule=NoiseSchedule.linear())
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    with torch.no_grad():
        torch.testing.assert_close(source.model(x, t), network(x, t).sample)


def test_an_origin_names_no_folder(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "net.safetensors")
    assert load_safetensors(tmp_path / "net.safetensors").keys() == STATE.keys()
    place, options = f"local-dir:{tmp_path}/model", {"weights": f"{tmp_path}/net.safetensors", "size": "32"}
    text = origin_of(SourceText("", "timm", place, options), tmp_path / "net.safetensors")
    assert text.startswith("timm:local-dir:model?weights=net.safetensors&size=32 (sha256 ")
    code = origin_of(SourceText("", "python", f"{tmp_path}/nets.py:make", {}), network=net())
    assert code.startswith("python:nets.py:make (sha256 ")
    hub = origin_of(SourceText("", "diffusers", "google/ddpm-cifar10-32", {}))
    assert hub == "diffusers:google/ddpm-cifar10-32"
