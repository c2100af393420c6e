"""Networks by name: what a source text leads to, and what is said when it leads nowhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from codes import raises_code
from safetensors.torch import save_file
from torch import nn

from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec
from edgepure_export.sources import scheme as sources
from edgepure_export.sources.resolve import resolve_classifier, resolve_diffusion
from edgepure_export.sources.scheme import DiffusionSource, SourceText, diffusion_scheme

MODULE = """
from torch import nn
import own_helper_module

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

def make():
    return Net()

ready = Net()
number = 5

def broken():
    raise KeyError("weights")

def text():
    return "a network"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of a user with networks in it, and a module beside it that it imports."""
    (tmp_path / "own_helper_module.py").write_text("")
    path = tmp_path / "own_networks_of_a_test.py"
    path.write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield path
    for name in ("own_networks_of_a_test", "own_helper_module"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["make", "Net", "ready"])
@pytest.mark.parametrize("place", ["file", "module"])
def test_functions_classes_and_modules_give_networks(name: str, place: str, file: Path) -> None:
    before = list(sys.path)
    text = f"python:{file if place == 'file' else file.stem}:{name}"
    found = resolve_classifier(text)
    assert type(found.model).__name__ == "Net"
    assert not found.model.training
    inner = f"{file.name if place == 'file' else file.stem}:{name}"
    assert re.fullmatch(rf"python:{re.escape(inner)} \(sha256 [0-9a-f]{{64}}\)", found.origin), "no folder, but a hash"
    assert sys.path == before
    assert resolve_diffusion(text).schedule is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("resnet18", "E-source-scheme"),
        ("pickle:model.pt", "E-source-scheme"),
        ("python:", "E-source-scheme"),
        ("python:own_networks_of_a_test", "E-source-python"),
        ("python:no_such_package_anywhere:make", "E-source-code"),
        ("python:nowhere.py:make", "E-source-file-missing"),
        ("python:own_networks_of_a_test:mke", "E-source-python-name"),
        ("python:own_networks_of_a_test:number", "E-source-python-function"),
        ("python:own_networks_of_a_test:broken", "E-source-code-failed"),
        ("python:own_networks_of_a_test:text", "E-source-python-module"),
    ],
)
def test_what_leads_nowhere_says_where_it_stopped(text: str, code: str, file: Path) -> None:
    with raises_code(code):
        resolve_classifier(text)


def test_a_file_that_fails_leaves_no_module_behind(tmp_path: Path) -> None:
    (tmp_path / "fails_when_imported.py").write_text("import sys\n1 / 0\n")
    with raises_code("E-source-code"):
        resolve_classifier(f"python:{tmp_path}/fails_when_imported.py:make")
    assert "fails_when_imported" not in sys.modules


def test_weights_are_loaded_and_must_fit(file: Path, tmp_path: Path) -> None:
    text = f"python:{file}:make"
    good = {"head.weight": torch.full((2, 3), 7.0), "head.bias": torch.ones(2)}
    bad = [
        ("head.bias", {"head.weight": good["head.weight"]}),
        ("tail.weight", {**good, "tail.weight": torch.ones(1)}),
        ("head.bias", {**good, "head.bias": torch.ones(4)}),
    ]
    save_file(good, tmp_path / "good.safetensors")
    for source in (text, f"{text}?weights={tmp_path / 'good.safetensors'}"):
        model = resolve_classifier(source, tmp_path / "good.safetensors" if source == text else None).model
        assert torch.equal(model.state_dict()["head.weight"], good["head.weight"])
    for words, tensors in bad:
        save_file(tensors, tmp_path / "bad.safetensors")
        with raises_code("E-checkpoint-keys") as caught:
            resolve_classifier(text, tmp_path / "bad.safetensors")
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("torn.safetensors", "E-checkpoint-kind"),
        ("none.safetensors", "E-checkpoint-missing"),
        ("evil.pt", "E-checkpoint-code"),
    ],
)
def test_damaged_missing_and_pickled_weights_are_refused(name: str, code: str, file: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\x00\x00")
    torch.save({"head.bias": sys.exit}, tmp_path / "evil.pt")  # opening it the unsafe way would look sys.exit up
    with raises_code(code):
        resolve_diffusion(f"python:{file}:make", tmp_path / name)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("weights=random", "E-source-random"),
        ("depth=3", "E-source-option-unknown"),
        ("weights", "E-source-options"),
        ("weights=a&weights=b", "E-source-options"),
    ],
)
def test_options_that_a_scheme_does_not_have_are_refused(options: str, code: str, file: Path) -> None:
    with raises_code(code):
        resolve_classifier(f"python:own_networks_of_a_test:make?{options}")


def test_other_schemes_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.REGISTRY, "diffusions", dict(sources.REGISTRY.diffusions))

    @diffusion_scheme("mine")
    def mine(source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
        network = nn.Conv2d(1, int(source.place), 1)
        return DiffusionSource(network, source.text, schedule.spec)

    cosine = ScheduleSpec(kind="cosine")
    found = resolve_diffusion("mine:3", schedule=cosine.build())
    assert found.schedule == cosine
    assert isinstance(found.model, nn.Conv2d) and found.model.out_channels == 3
    with raises_code("E-source-scheme"):
        resolve_diffusion("other:3")
    with raises_code("E-source-scheme"):
        resolve_classifier("mine:3")
