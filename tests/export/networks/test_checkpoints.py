"""Reading checkpoint files: every wrapping that is used, and one sentence for everything that can be wrong."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codes import raises_code
from safetensors.torch import save_file
from torch import Tensor, nn

from edgepure.errors import ExportError
from edgepure_export.networks import checkpoints, guided_diffusion, ncsnpp, wideresnet
from edgepure_export.networks.checkpoints import CheckpointError, read_checkpoint, require_memory
from edgepure_export.networks.edm_unets import EdmUNetConfig, SongUNet
from edgepure_export.networks.load import load_diffusion, load_wideresnet
from edgepure_export.networks.weights import identify, load_weights, state_dict_from, strip_prefixes


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def one_sentence(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    """The message, which has to be something a user can read: one line, no traceback, no raw parser text."""
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text and len(text) < 700
    assert isinstance(error.value, ExportError)
    return text


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "zip": lambda state, file: torch.save(state, file),
    "legacy": lambda state, file: torch.save(state, file, _use_new_zipfile_serialization=False),
    "safetensors": lambda state, file: save_file(state, file),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "natural.pt.tar"])
def test_formats_are_recognised_by_content_not_by_name(kind: str, name: str, tmp_path: Path) -> None:
    state = dict(small().state_dict())
    WRITERS[kind](state, tmp_path / name)
    content = read_checkpoint(tmp_path / name)
    assert {k: v.tolist() for k, v in content.items()} == {k: v.tolist() for k, v in state.items()}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_truncated_download(kind: str, kept: float, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    WRITERS[kind](dict(nn.Linear(40, 40).state_dict()), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])
    with raises_code("E-checkpoint-damaged") as error:
        read_checkpoint(file)
    assert "download it again" in one_sentence(error) and str(file) in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>", "Google Drive - Virus scan"),
        (b"\n  <HTML><body>404</body>", "is a web page, not weights"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "compressed archive"),
        (b'{"error": "quota exceeded"}', "neither a PyTorch nor a safetensors file"),
        (bytes(100), "neither a PyTorch nor a safetensors file"),
        (b"PK\x03\x04" + bytes(300), "truncated or damaged"),
        (struct.pack("<Q", 40) + b'{"a": nonsense}' + bytes(40), "truncated or damaged"),
    ],
)
def test_other_files_under_the_name_of_a_checkpoint(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_8.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(file)
    assert said in one_sentence(error)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with raises_code("E-checkpoint-missing") as error:
        read_checkpoint(tmp_path / "nowhere.pt")
    one_sentence(error)
    with raises_code("E-checkpoint-folder"):
        read_checkpoint(tmp_path)


class Bomb:
    """An object whose unpickling would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("writer", ["zip", "legacy", "pickle"])
def test_pickle_with_code_is_refused_and_does_not_run(writer: str, tmp_path: Path) -> None:
    file, target = tmp_path / "network.pkl", tmp_path / "ran"
    content = {"ema": Bomb(target), "weight": torch.zeros(2)}
    if writer == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        WRITERS[writer](content, file)
    with raises_code("E-checkpoint-code") as error:
        read_checkpoint(file)
    assert "state dict" in one_sentence(error)
    assert not target.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_whole_module_is_refused(kind: str, tmp_path: Path) -> None:
    WRITERS[kind](small(), tmp_path / "model.pt")
    with raises_code("E-checkpoint-code") as error:
        read_checkpoint(tmp_path / "model.pt")
    one_sentence(error)


def test_numpy_numbers_of_a_training_script_are_no_code(tmp_path: Path) -> None:
    torch.save({"state_dict": small().state_dict(), "best": np.float64(0.93), "epoch": np.int64(7)}, tmp_path / "a.pt")
    content = read_checkpoint(tmp_path / "a.pt")
    assert content["best"] == 0.93 and content["epoch"] == 7


@pytest.mark.parametrize("text", ["[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", None])
def test_file_larger_than_the_memory(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError(text) if text else MemoryError()

    torch.save(small().state_dict(), tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", fail)
    with raises_code("E-checkpoint-memory") as error:
        read_checkpoint(tmp_path / "a.pt")
    one_sentence(error)


def test_weights_larger_than_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small()
    monkeypatch.setattr(checkpoints, "available_memory", lambda: 100)
    with raises_code("E-checkpoint-memory") as error:
        load_weights(small(), net.state_dict(), "a.pt")
    one_sentence(error)
    monkeypatch.setattr(checkpoints, "available_memory", lambda: None)
    load_weights(small(), net.state_dict(), "a.pt")


@pytest.mark.parametrize("kind", ["legacy", "safetensors"])
def test_file_that_must_be_read_whole_is_refused_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[kind](dict(small().state_dict()), tmp_path / "a.pt")
    monkeypatch.setattr(checkpoints, "available_memory", lambda: 100)
    with raises_code("E-checkpoint-memory") as error:
        read_checkpoint(tmp_path / "a.pt")
    one_sentence(error)


def test_available_memory_is_measured() -> None:
    free = checkpoints.available_memory()
    assert free is None or 1 << 20 < free < 1 << 50
    require_memory(0, "nothing")


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "model.module.module."])
@pytest.mark.parametrize("wrapping", [(), ("state_dict",), ("model_state_dict",), ("net",), ("model", "state_dict")])
def test_wrappings_and_prefixes(prefix: str, wrapping: tuple[str, ...]) -> None:
    state = small().state_dict()
    content: Any = {prefix + k: v for k, v in state.items()}
    for name in reversed(wrapping):
        content = {name: content, "epoch": 3, "optimizer": {"state": {}, "lr": 0.1}}
    found = state_dict_from(content, "a.pt")
    assert list(found) == list(state)


def test_prefix_that_only_some_keys_carry_stays() -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(strip_prefixes(state)) == ["module.a", "b"]


def test_several_sets_of_weights_must_be_named() -> None:
    content = {"state_dict": {"a": torch.zeros(1)}, "model": {"a": torch.ones(1)}, "ema": {"a": torch.full((1,), 2.0)}}
    with raises_code("E-checkpoint-entries") as error:
        state_dict_from(content, "a.pt")
    one_sentence(error)
    assert state_dict_from(content, "a.pt", key="ema")["a"].item() == 2.0
    with raises_code("E-checkpoint-entry"):
        state_dict_from(content, "a.pt", key="ema2")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], torch.zeros(1), {"a": torch.zeros(1), "b": 3}])
def test_no_weights_inside(content: Any) -> None:
    with raises_code("E-checkpoint-no-weights") as error:
        state_dict_from(content, "a.pt")
    one_sentence(error)


def test_every_wrong_key_is_listed() -> None:
    state = dict(small().state_dict())
    state["0.scale"] = state.pop("0.bias")
    state["1.weight"] = torch.ones(5)
    with pytest.raises(CheckpointError) as error:
        load_weights(small(), state, "a.pt")
    text = one_sentence(error)
    assert "1 missing: 0.bias" in text and "1 unknown: 0.scale" in text
    assert "1.weight [5] instead of [4]" in text


def test_long_lists_are_cut() -> None:
    state = {**small().state_dict(), **{f"extra.{i}": torch.zeros(1) for i in range(300)}}
    with raises_code("E-checkpoint-keys") as error:
        load_weights(small(), state, "a.pt")
    one_sentence(error)


def test_refused_weights_leave_the_module_alone() -> None:
    net = small()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = {**{k: v + 1 for k, v in before.items()}, "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError):
        load_weights(net, state, "a.pt")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(bad: float) -> None:
    state = dict(small().state_dict())
    state["0.bias"] = torch.tensor([0.0, bad, 0.0, 0.0])
    with raises_code("E-checkpoint-not-finite") as error:
        load_weights(small(), state, "a.pt")
    one_sentence(error)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_take_the_dtype_of_the_module_exactly(dtype: torch.dtype) -> None:
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in small().state_dict().items()}
    with torch.device("meta"):
        net = small()
    loaded = load_weights(net, state, "a.pt")
    for key, value in loaded.state_dict().items():
        assert value.device.type == "cpu" and torch.equal(value, state[key].to(value.dtype))
        assert value.dtype == (torch.float32 if state[key].is_floating_point() else torch.int64)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_loaded_weights_are_copies(tmp_path: Path) -> None:
    """The file may be replaced or deleted afterwards."""
    torch.save(small().state_dict(), tmp_path / "a.pt")
    state = read_checkpoint(tmp_path / "a.pt")
    loaded = load_weights(small(), state, "a.pt")
    pointers = {v.data_ptr() for v in state.values()}
    assert not pointers & {v.data_ptr() for v in loaded.state_dict().values()}


def families() -> dict[str, dict[str, Tensor]]:
    adm = guided_diffusion.GuidedDiffusionConfig(
        image_size=8, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_factors=()
    )
    song = EdmUNetConfig(img_resolution=8, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
    wide = wideresnet.WideResNetConfig(10, 1)
    return {
        "guided-diffusion": guided_diffusion.GuidedDiffusionUNet(adm).state_dict(),
        "score-sde": ncsnpp.NCSNpp(ncsnpp.NCSNppConfig(nf=8, ch_mult=(1,), num_res_blocks=1)).state_dict(),
        "edm": SongUNet(song).state_dict(),
        "robustbench-wrn": wideresnet.WideResNet(wide).state_dict(),
    }


FAMILIES = families()


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_families_are_told_apart_by_their_keys(prefix: str) -> None:
    for family, state in FAMILIES.items():
        assert identify(prefix + k for k in state) == family
    deep_mind = wideresnet.DMWideResNet(wideresnet.WideResNetConfig(10, 1)).state_dict()
    assert identify(prefix + k for k in deep_mind) == "robustbench-wrn"
    assert identify(["layer1.0.conv1.weight", "fc.weight"]) is None


@pytest.mark.parametrize("given", FAMILIES)
@pytest.mark.parametrize("asked", FAMILIES)
def test_checkpoint_of_the_wrong_family(given: str, asked: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(FAMILIES[given], file)
    settings = {"image_size": 8, "num_heads": 4} if asked == given == "guided-diffusion" else {}

    def load() -> object:
        if asked == "robustbench-wrn":
            return load_wideresnet(file)
        return load_diffusion(asked, file, settings=settings)  # type: ignore[arg-type]

    if asked == given:
        load()
        return
    with raises_code("E-checkpoint-family") as error:
        load()
    assert f"{given}:{file}" in one_sentence(error)


@pytest.mark.parametrize("beside", ['{"flags": {"num_channels": "many"}}', '{"data": 3, "precond": "flow"}', "<html>"])
@pytest.mark.parametrize(
    ("given", "asked"), [(g, a) for g in FAMILIES for a in FAMILIES if a not in (g, "robustbench-wrn")]
)
def test_the_wrong_family_is_said_before_anything_about_the_settings(
    given: str, asked: str, beside: str, tmp_path: Path
) -> None:
    """The settings that lie beside a file belong to its own family."""
    file = tmp_path / "weights.pt"
    torch.save({"step": 3, "ema": FAMILIES[given], "model": FAMILIES[given]}, file)
    (tmp_path / "weights.pt.json").write_text(beside)
    with raises_code("E-checkpoint-family") as error:
        load_diffusion(asked, file)  # type: ignore[arg-type]
    one_sentence(error)


def test_unknown_preset_family_and_double_settings(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save(FAMILIES["score-sde"], file)
    with raises_code("E-checkpoint-preset-unknown"):
        load_diffusion("score-sde", file, preset="cifar")
    with raises_code("E-checkpoint-preset-twice"):
        load_diffusion("score-sde", file, preset="cifar10-ddpmpp-continuous", settings={"data": {}})
    with raises_code("E-family-unknown"):
        load_diffusion("ddpm", file)  # type: ignore[arg-type]
    with raises_code("E-checkpoint-settings-read"):
        load_diffusion("score-sde", file, settings=tmp_path / "none.json")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 3).to_sparse(),
        torch.empty(2, 3, device="meta"),
        torch.zeros(2, 3, dtype=torch.complex64),
    ],
    ids=["sparse", "without data", "complex"],
)
def test_tensors_that_are_no_plain_arrays_are_refused(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"weight": tensor}, tmp_path / "a.pt")
    state = state_dict_from(read_checkpoint(tmp_path / "a.pt"), "a.pt")
    with raises_code("E-checkpoint-keys"):
        load_weights(nn.Linear(3, 2, bias=False), state, "a.pt")


def test_names_of_weights_are_texts(tmp_path: Path) -> None:
    torch.save({1: torch.zeros(2)}, tmp_path / "a.pt")
    with raises_code("E-checkpoint-no-weights"):
        state_dict_from(read_checkpoint(tmp_path / "a.pt"), "a.pt")


def test_an_archive_with_a_damaged_end_is_one_sentence(tmp_path: Path) -> None:
    # an end of a large archive that says that it spans several disks
    locator = b"PK\x06\x07" + struct.pack("<LQL", 5, 0, 9)
    end = b"PK\x05\x06" + bytes(18)
    (tmp_path / "a.pt").write_bytes(b"PK\x03\x04" + bytes(60) + locator + end)
    with raises_code("E-checkpoint-damaged"):
        read_checkpoint(tmp_path / "a.pt")
