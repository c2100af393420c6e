"""From names and files to a bundle in one call, and what is said when that cannot be done."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cli_process
import model_folders
import network_goldens
import numpy as np
import pytest
import tiny_models
import torch
from codes import raises_code
from safetensors.torch import save_file

from edgepure.bundle.bundle import Bundle
from edgepure.purify.purifier import load
from edgepure_export import export_from_sources
from edgepure_export.bundle.from_sources import choose_taps
from edgepure_export.sources.resolve import resolve_classifier
from edgepure_export.sources.scheme import ClassifierSource

RESNET = "timm:test_resnet?weights=random&num_classes=3&size=32"


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder, trained with a cosine schedule to predict v."""
    return model_folders.diffusers_folder(
        tmp_path_factory.mktemp("diffusers"),
        model_folders.diffusers_unet(),
        prediction_type="v_prediction",
        beta_schedule="squaredcos_cap_v2",
    )


@pytest.fixture(scope="module")
def exported(unet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "models"
    done = cli_process.run(
        "export",
        "--classifier",
        RESNET,
        "--diffusion",
        f"diffusers:{unet}",
        "--preset",
        "cifar10-edge-2",
        "--preset",
        "cifar10-diffpure-ssni-linear",
        "--set",
        "ssni.xi_min=1",
        "--set",
        "ssni.xi_max=9",
        "--any-network",
        "--out",
        out,
        "--json",
    )
    assert done.code == 0, done.stderr
    assert done.json["blocks"] == [f"network.layer{i}.0" for i in range(1, 5)]
    assert done.json["default_preset"] == "cifar10-edge-2"
    assert "random weights" in done.stderr
    return out


def test_sources_become_a_bundle(exported: Path) -> None:
    manifest = Bundle.open(exported).manifest
    assert set(manifest.graphs) == {"classifier", "mask", "step", "unet"}
    assert manifest.image.shape == (3, 8, 8)
    assert manifest.schedule.kind == "linear", "published presets count timesteps of the linear schedule"
    assert manifest.provenance.classifier == RESNET
    assert "sha256" in manifest.provenance.diffusion
    assert str(exported.parents[1]) not in manifest.provenance.diffusion, "folders of the exporting machine"
    assert manifest.presets["cifar10-diffpure-ssni-linear"].ssni is not None
    assert manifest.presets["cifar10-diffpure-ssni-linear"].ssni.xi_max == 9.0
    assert max(manifest.provenance.parity.values()) < 1e-4
    with load(exported, threads=1) as purifier:
        result = purifier.classify(tiny_models.images(1).numpy(), noise=1)[0]
    assert result.unet_calls == 2


def test_inspect_shows_the_taps(exported: Path) -> None:
    done = cli_process.run("inspect", exported)
    assert "network.layer1.0, network.layer2.0, network.layer3.0, network.layer4.0" in done.stdout


def test_an_official_mask_needs_a_classifier_that_does_not_normalise(unet: Path, tmp_path: Path) -> None:
    with raises_code("E-mask-input-twice"):
        export_from_sources(RESNET, f"diffusers:{unet}", tmp_path / "b", preset="cifar10-dhni-official")
    assert not (tmp_path / "b").exists()


def test_presets_of_ones_own_keep_their_names(unet: Path, tmp_path: Path) -> None:
    own = {"cifar10-edge-2": {"method": {"method": "uniform"}}}
    with raises_code("E-preset-name"):
        export_from_sources(RESNET, f"diffusers:{unet}", tmp_path / "b", preset="cifar10-edge-2", presets=own)


def test_blocks() -> None:
    unknown = ClassifierSource(tiny_models.TinyClassifier(), "python:own:classifier")
    masked: dict[str, Any] = {"m": {"method": {"method": "heterogeneous"}, "mask": {"area": 0.1}}}
    assert choose_taps(unknown, "auto", {}) is None
    assert choose_taps(resolve_classifier(RESNET), "none", {}) is None
    with raises_code("E-taps-needed"):
        choose_taps(unknown, "auto", masked)
    with raises_code("E-taps-needed"):
        choose_taps(resolve_classifier(RESNET), "none", masked)


def test_a_network_that_does_not_fit_in_memory(unet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the export begins, not by the kernel when it is half done."""
    from edgepure_export.networks import checkpoints

    monkeypatch.setattr(checkpoints, "available_memory", lambda: 1_000_000)
    with raises_code("E-checkpoint-memory") as raised:
        export_from_sources(RESNET, f"diffusers:{unet}", tmp_path / "b")
    assert "\n" not in str(raised.value)


# --- bad input, through the command line of one process -----------------------------------------------------------

#: Runs the command line several times in one process, because each start of PyTorch takes seconds.
DRIVER = """
import contextlib, io, json, sys
from edgepure.cli import main
results = {}
for name, arguments in json.load(sys.stdin).items():
    sys.argv, out, err = ["edgepure", *arguments], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as leave:
            code = leave.code
    results[name] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(results))
"""


class Malicious:
    """Unpickling it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.fixture(scope="module")
def bad(unet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, cli_process.Finished]:
    folder = tmp_path_factory.mktemp("bad")
    golden = network_goldens.load("G9_unet_score_sde", "checkpoint_tiny").weights
    wrn = next(golden.parents[1].glob("G10*/wrn_*.safetensors"))
    page, cut, code, large = (folder / n for n in ("page.pt", "cut.pt", "code.pt", "large.safetensors"))
    page.write_text("<!DOCTYPE html><html><title>Quota exceeded</title></html>")
    cut.write_bytes(golden.read_bytes()[: golden.stat().st_size // 2])
    torch.save({"ema": 1, "model": Malicious(folder / "ran")}, code, pickle_module=pickle)
    whole = folder / "checkpoint_8.pth"  # without the settings that lie beside the golden
    whole.symlink_to(golden.resolve())
    cut_tensors, wrong = folder / "cut.safetensors", folder / "wrong.safetensors"
    cut_tensors.write_bytes(wrn.read_bytes()[:-1000])
    save_file({"weight": torch.zeros(3)}, wrong)
    # A valid header whose tensor is larger than any memory, in a file with a hole.
    size = 1 << 42
    header = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with large.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + size)
    good_diffusion = f"diffusers:{unet}"
    sources = {
        "page": (f"robustbench-wrn:{page}", good_diffusion),
        "cut": (RESNET, f"score-sde:{cut}"),
        "cut tensors": (f"robustbench-wrn:{cut_tensors}", good_diffusion),
        "code": (RESNET, f"score-sde:{code}"),
        "wrong family": (RESNET, f"guided-diffusion:{whole}"),
        "wrong kind": (f"robustbench-wrn:{golden}?entry=model", good_diffusion),
        "wrong weights": (f"timm:test_resnet?weights={wrong}", good_diffusion),
        "memory": (f"robustbench-wrn:{large}", good_diffusion),
        "network timm": ("timm:resnet18", good_diffusion),
        "network torchvision": ("torchvision:resnet18", good_diffusion),
        "network transformers": ("transformers:google/vit-base-patch16-224", good_diffusion),
        "network diffusers": (RESNET, "diffusers:google/ddpm-cifar10-32"),
        "preset": (RESNET, good_diffusion, "--preset", "imagenet-edge-3"),
        "statistics": (RESNET, good_diffusion, "--preset", "cifar10-gnsp-ssni-sigmoid"),
        "set alone": (RESNET, good_diffusion, "--set", "t_star=5"),
        "mask input": (RESNET, good_diffusion, "--mask-input", "theirs"),
    }
    cases = {
        name: ["export", "--classifier", text[0], "--diffusion", text[1], "--out", str(folder / "out"), *text[2:]]
        for name, text in sources.items()
    }
    nowhere = "http://127.0.0.1:9"
    env = cli_process.environment(
        HF_HUB_OFFLINE="1",
        HF_HOME=str(folder / "hf"),
        TORCH_HOME=str(folder / "torch"),
        http_proxy=nowhere,
        https_proxy=nowhere,
        HTTP_PROXY=nowhere,
        HTTPS_PROXY=nowhere,
    )
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], input=json.dumps(cases), env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "ran").exists(), "the pickle's code ran"
    assert not (folder / "out").exists()
    return {name: cli_process.Finished(*result) for name, result in json.loads(done.stdout).items()}


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("page", 7, ("web page", "Quota exceeded")),
        ("cut", 7, ("truncated", "download it again")),
        ("cut tensors", 7, ("truncated", "download it again")),
        ("code", 7, ("more than weights", "nothing was loaded")),
        ("wrong family", 7, ("score-sde", "not guided-diffusion")),
        ("wrong kind", 7, ("score-sde",)),
        ("wrong weights", 7, ("77 missing: conv1.0.weight", "1 unknown: weight")),
        ("memory", 7, ("GiB", "memory")),
        ("network timm", 7, ("needs the network", "timm:resnet18?weights=FILE")),
        ("network torchvision", 7, ("needs the network", "resnet18-", ".pth")),
        ("network transformers", 7, ("needs the network", "transformers:FOLDER")),
        ("network diffusers", 7, ("needs the network", "diffusers:FOLDER")),
        ("preset", 2, ("imagenet-edge-4",)),
        ("statistics", 2, ("needs mu and tau", "--set ssni.mu=")),
        ("set alone", 2, ("--preset",)),
        ("mask input", 2, ("own or official",)),
    ],
)
def test_one_clear_sentence(name: str, code: int, words: tuple[str, ...], bad: dict[str, cli_process.Finished]) -> None:
    sentence = bad[name].fails(code, *words)
    assert len(sentence) < 700
    assert np.all([part not in sentence for part in ("Traceback", "defect of edgepure")])
