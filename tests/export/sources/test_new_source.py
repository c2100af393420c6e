"""A model source of somebody else is one file and a line of its pyproject.toml; Python and the command line use it."""

from __future__ import annotations

from pathlib import Path

import cli_process
import foreign_package
import pytest
import torch
from codes import raises_code

from edgepure.bundle.bundle import Bundle
from edgepure.machine import packages
from edgepure_export.sources import resolve_classifier, resolve_diffusion, schemes

SOURCE = '''
    """Networks of 8 x 8 images by the number of their classes."""

    import torch
    from torch import nn

    from edgepure_export.sources import ClassifierSource, DiffusionSource, origin_of
    from edgepure_export.sources import classifier_scheme, diffusion_scheme


    class Brightness(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.levels = nn.Parameter(torch.linspace(0.0, 1.0, classes))

        def forward(self, image):
            return -(image.mean((1, 2, 3))[:, None] - self.levels).abs()


    class Noise(nn.Module):
        def forward(self, x, t):
            return 0.9 * x + 0.0 * t[:, None, None, None]


    @classifier_scheme("brightness")
    def classifier(source, image_size):
        source.allow("classes")
        network = Brightness(source.number("classes") or int(source.place))
        return ClassifierSource(network, origin_of(source, network=network))


    @diffusion_scheme("brightness")
    def diffusion(source, schedule):
        return DiffusionSource(Noise(), origin_of(source), schedule.spec, image=(3, 8, 8))
'''


def forget() -> None:
    """What this process has read of the installed packages."""
    packages.extensions.cache_clear()
    packages._declared.cache_clear()


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = foreign_package.install(
        tmp_path / "site", "brightness_networks", SOURCE, "edgepure.sources", brightness="brightness_networks"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    forget()
    yield found
    forget()


def test_through_python(env: dict[str, str]) -> None:
    assert "brightness" in schemes("classifier") and "brightness" in schemes("diffusion model")
    source = resolve_classifier("brightness:4")
    assert source.model(torch.full((1, 3, 8, 8), 0.67)).argmax() == 2
    assert source.origin.startswith("brightness:4 (sha256 ")
    assert resolve_classifier("brightness:own?classes=7").model(torch.rand(2, 3, 8, 8)).shape == (2, 7)
    assert resolve_diffusion("brightness:any").image == (3, 8, 8)
    with raises_code("E-source-option-unknown"):
        resolve_classifier("brightness:4?size=3")


def test_through_the_command_line(env: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = cli_process.run(
        "export", "--classifier", "brightness:4", "--diffusion", "brightness:noise", "--out", out, env=env
    )
    assert done.code == 0, done.stderr
    assert "no attention mask" in done.stdout
    manifest = Bundle.open(out).manifest
    assert manifest.provenance.classifier.startswith("brightness:4 (sha256 ")
    assert len(manifest.classes) == 4


def test_a_source_that_cannot_be_imported_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign_package.install(
        tmp_path, "broken_networks", "import no_such_library", "edgepure.sources", broken="broken_networks"
    )
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    with raises_code("E-source-import") as caught:
        resolve_classifier("broken:x")
    forget()
    assert "no_such_library" in str(caught.value)
