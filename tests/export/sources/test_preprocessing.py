"""A classifier's preprocessing inside its graph does what its library does outside."""

from __future__ import annotations

import pytest
import torch
from codes import raises_code
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from edgepure_export.sources.preprocessing import Preprocessed, Resize, Transform


class Through(nn.Module):
    """Shows what would reach the network."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def images(h: int, w: int, count: int = 2) -> Tensor:
    coarse = torch.rand((count, 3, 6, 6), generator=torch.Generator().manual_seed(h + w))
    return F.interpolate(coarse, (h, w), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("target", [(7, 9), (16, 16), (20, 33), (5, 40)])
@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_matrices_are_the_filter(target: tuple[int, int], filter: str, antialias: bool) -> None:
    x = images(16, 20)
    got = Resize((16, 20), target, filter, antialias)(x)  # type: ignore[arg-type]
    wanted = F.interpolate(x, target, mode=filter, align_corners=False, antialias=antialias)
    torch.testing.assert_close(got, wanted.clamp(0, 1), atol=2e-6, rtol=0)


def test_the_same_size_is_left_alone() -> None:
    x = images(12, 12)
    torch.testing.assert_close(Preprocessed(Through(), Transform((12, 12)), (12, 12))(x), x, atol=0, rtol=0)


@pytest.mark.parametrize("source", [(48, 48), (32, 48), (50, 33)])
def test_torchvisions_own_transform(source: tuple[int, int]) -> None:
    """Resize the shorter side, cut out the middle, normalise; with its tensor backend, the same numbers."""
    from torchvision.transforms._presets import ImageClassification

    theirs = ImageClassification(crop_size=24, resize_size=28)
    ours = Transform((24, 24), 28, "bilinear", True, tuple(theirs.mean), tuple(theirs.std))
    x = images(*source)
    torch.testing.assert_close(Preprocessed(Through(), ours, source)(x), theirs(x), atol=1e-5, rtol=0)


def test_timms_own_transform() -> None:
    """Pillow rounds to whole 8-bit values after each pass of its filter, so it is near, not equal."""
    from timm.data import create_transform

    theirs = create_transform((3, 24, 24), interpolation="bicubic", mean=(0.5,) * 3, std=(1.0,) * 3, crop_pct=0.8)
    ours = Preprocessed(Through(), Transform((24, 24), 30, "bicubic", True, (0.5,) * 3, (1.0,) * 3), (40, 40))
    pixels = (images(40, 40, 1)[0] * 255).round().to(torch.uint8)
    wanted = theirs(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    assert float((ours(pixels[None] / 255.0)[0] - wanted).abs().max()) <= 1.6 / 255


def test_ways_to_the_size() -> None:
    library = Transform((24, 24), 30, "bicubic", True, (0.5,) * 3, (0.5,) * 3)
    x = images(40, 40)
    seen = {
        way: Preprocessed(Through(), library.fitted(way, None), (40, 40))(x) for way in ("library", "crop", "plain")
    }
    plain = (F.interpolate(x, (24, 24), mode="bilinear", align_corners=False) - 0.5) / 0.5
    torch.testing.assert_close(seen["plain"], plain, atol=1e-5, rtol=0)
    assert {way: tuple(v.shape[2:]) for way, v in seen.items()} == dict.fromkeys(seen, (24, 24))
    assert not torch.allclose(seen["library"], seen["crop"], atol=1e-2)
    assert library.fitted("library", 30).size == (30, 30)


def test_black_around_an_image_that_is_smaller_than_the_crop() -> None:
    """As the libraries' own centre crop has it."""
    from torchvision.transforms import functional as TF

    x = images(40, 40)
    ours = Preprocessed(Through(), Transform((48, 31), (24, 29)).fitted("crop", None), (40, 40))(x)
    wanted = TF.center_crop(TF.resize(x, [24, 29], antialias=True), [48, 31])
    torch.testing.assert_close(ours, wanted, atol=2e-6, rtol=0)


def test_images_of_any_size_need_one() -> None:
    with raises_code("E-preprocessing-size"):
        Preprocessed(Through(), Transform(None))
