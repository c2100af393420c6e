"""torchvision's classifiers are built as the library builds them for its weights, and see what its transforms give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from codes import raises_code
from torch import nn

from edgepure_export.sources.preprocessing import Preprocessed
from edgepure_export.sources.resolve import resolve_classifier
from edgepure_export.sources.scheme import SourceText
from edgepure_export.sources.torchvision import constructor_arguments, read_transform

models = pytest.importorskip("torchvision.models")
SOURCE = SourceText("torchvision:x", "torchvision", "x", {})
NAMES = models.list_models(module=models)


def published() -> list[Any]:
    return [pytest.param(name, w, id=f"{name}-{w.name}") for name in NAMES for w in models.get_model_weights(name)]


def settings(network: nn.Module) -> list[tuple[str, dict[str, Any]]]:
    """What a network was told besides its weights, module by module."""
    plain = (bool, int, float, str, tuple, list, type(None))
    return [
        (name, {k: v for k, v in vars(m).items() if isinstance(v, plain) and k != "training"})
        for name, m in network.named_modules()
        if not name.startswith(("aux", "AuxLogits"))
    ]


@pytest.mark.parametrize(("name", "weights"), published())
def test_flags_of_published_weights(name: str, weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the library's own builder, which gets an empty file; nobody draws numbers that nobody reads."""
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, *args, **kwargs: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, *args, **kwargs: None)
    for filler in (f for f in vars(nn.init) if f.endswith("_") and not f.startswith("_")):
        monkeypatch.setattr(nn.init, filler, lambda tensor, *args, **kwargs: tensor)
    fast = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # Not on the meta device for all: RegNet works its widths out with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        theirs = models.get_model(name, weights=weights, **fast)
        ours = models.get_model(name, weights=None, **fast, **constructor_arguments(name, weights))
    found = dict(settings(ours))
    for module, said in settings(theirs):
        said.pop("aux_logits", None)
        mine = {k: v for k, v in found[module].items() if k != "aux_logits"}
        assert mine == said, module


def transforms() -> dict[str, Any]:
    """One weights entry for each different set of transforms."""
    every = [w for name in NAMES for w in models.get_model_weights(name)]
    return {repr(w.transforms()): w for w in every}


@pytest.mark.parametrize("weights", transforms().values(), ids=str)
@pytest.mark.parametrize("source", [(300, 300), (260, 401)])
def test_transforms_of_published_weights(weights: Any, source: tuple[int, int]) -> None:
    theirs = weights.transforms()
    coarse = torch.rand((1, 3, 9, 7), generator=torch.Generator().manual_seed(1))
    x = nn.functional.interpolate(coarse, source, mode="bilinear")
    ours = Preprocessed(nn.Identity(), read_transform(theirs, SOURCE).fitted("crop", None), source)
    error = 7e-6 / min(theirs.std)  # in the unit of a pixel
    torch.testing.assert_close(ours.preprocess(x), theirs(x), atol=error, rtol=0)


def test_a_switch_that_nobody_knows() -> None:
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    preset.sharpen = 0.5
    with raises_code("E-preprocessing-setting"):
        read_transform(preset, SOURCE)


def test_a_downloaded_file_counts_as_the_weights_that_it_is(tmp_path: Path) -> None:
    """By its published name: GoogLeNet undoes the normalisation inside, whoever downloaded it."""
    weights = models.GoogLeNet_Weights.IMAGENET1K_V1
    state = models.googlenet(weights=None, init_weights=False, aux_logits=True).state_dict()
    for file, undone in ((weights.url.rsplit("/", 1)[-1], True), ("own.pth", False)):
        torch.save(state, tmp_path / file)
        source = resolve_classifier(f"torchvision:googlenet?weights={tmp_path / file}", image_size=(64, 64))
        assert source.network is not None and source.network.transform_input is undone


def test_vision_transformers_of_another_size() -> None:
    source = resolve_classifier("torchvision:vit_b_32?weights=random&size=64&num_classes=3", image_size=(32, 32))
    assert source.model(torch.rand(1, 3, 32, 32)).shape == (1, 3)
