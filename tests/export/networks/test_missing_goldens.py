"""A golden that is missing fails: it is not left out without a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from goldens_path import goldens_dir
from network_goldens import names


@pytest.mark.parametrize("lost", ["unet_updown.safetensors", "unet_updown.json", "unet_updown_io.npz", "*"])
def test_what_is_lost_is_noticed(lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "G8_unet_guided_diffusion"
    shutil.copytree(goldens_dir() / folder, tmp_path / folder)
    monkeypatch.setenv("EDGEPURE_GOLDENS", str(tmp_path))
    assert names(folder, "unet_*.safetensors") == ["unet_conv_heads4", "unet_updown"]
    for path in (tmp_path / folder).glob(lost):
        path.unlink()
    with pytest.raises(AssertionError):
        names(folder, "unet_*.safetensors")
