"""The attention mask: goldens G1, in PyTorch and as ONNX, and what happens at the edges."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import tiny_models
import torch
from codes import raises_code
from golden_data import files, load
from torch import Tensor, nn

from edgepure.methods.presets import MaskSpec
from edgepure_export.bundle.after_export import open_session
from edgepure_export.graphs.attention import AttentionHead, MaskModule
from edgepure_export.graphs.layouts import Tokens as TokenLayout
from edgepure_export.graphs.mask_cut import area_cut
from edgepure_export.graphs.tap_families import Taps
from edgepure_export.graphs.to_onnx import export_graph

MINMAX, SOFTMAX = 0.0, 1.0
FUSED_ATOL = 2e-6

Exporter = Callable[[tuple[tuple[int, ...], ...], tuple[int, int], float], Any]


class HeadOnly(nn.Module):
    """The head with the activations as one graph input, because goldens have any number of blocks."""

    def __init__(self, head: AttentionHead, shapes: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.head, self.shapes = head, shapes

    def forward(self, packed: Tensor, threshold: Tensor, area: Tensor, rule: Tensor) -> tuple[Tensor, Tensor]:
        parts = packed.split([math.prod(shape) for shape in self.shapes], dim=1)
        activations = [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]
        mask, attention = self.head(activations, threshold, area, rule)
        return mask, attention


class Golden:
    """One file of G1 and both ways to compute it."""

    def __init__(self, path: Path) -> None:
        self.data = load(path)
        names = sorted((n for n in self.data if re.fullmatch(r"act\d+", n)), key=lambda n: int(n[3:]))
        self.activations = [torch.from_numpy(self.data[name]) for name in names]
        self.size = (int(self.data["size_hw"][0]), int(self.data["size_hw"][1]))
        self.batch = len(self.activations[0])

    def area(self, share: float) -> float:
        return MaskSpec(area=share).area_input(self.size[0] * self.size[1])

    def settings(self, **values: float) -> dict[str, Tensor]:
        every = {"threshold": 0.0, "area": 0.0, "rule": MINMAX, **values}
        return {key: torch.full((self.batch,), float(value)) for key, value in every.items()}

    def in_torch(self, norm_p: float, **values: float) -> tuple[Any, Any]:
        mask, attention = AttentionHead(self.size, norm_p)(self.activations, **self.settings(**values))
        return mask.numpy(), attention.numpy()

    def exported(self, norm_p: float, exporter: Exporter) -> Any:
        session = exporter(tuple(tuple(a.shape[1:]) for a in self.activations), self.size, norm_p)
        packed = torch.cat([a.flatten(1) for a in self.activations], 1)

        def run(**values: float) -> tuple[Any, Any]:
            feeds = {"packed": packed, **self.settings(**values)}
            mask, attention = session.run(None, {key: tensor.numpy() for key, tensor in feeds.items()})
            return mask, attention

        return run


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Sessions of exported heads; files with the same shapes share one."""

    @cache
    def session(shapes: tuple[tuple[int, ...], ...], size: tuple[int, int], norm_p: float) -> Any:
        generator = torch.Generator().manual_seed(0)
        inputs = {"packed": torch.rand((2, sum(math.prod(s) for s in shapes)), generator=generator)}
        inputs |= {name: torch.zeros(2) for name in ("threshold", "area", "rule")}
        graph = export_graph("head", HeadOnly(AttentionHead(size, norm_p), shapes), inputs, ["mask", "attention"])
        path = tmp_path_factory.mktemp("head") / "head.onnx"
        onnx_ir.save(graph.model, path)
        return open_session(path, threads=1)

    return session


@pytest.mark.goldens
@pytest.mark.parametrize("norm_p", [1, 2])
@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("path", files("G1_dhni_mask", "dhni_mask.npz"), ids=lambda p: p.stem)
def test_golden_masks(path: Path, engine: str, norm_p: int, exporter: Exporter) -> None:
    golden = Golden(path)
    data = golden.data
    run = golden.exported(norm_p, exporter) if engine == "onnxruntime" else lambda **v: golden.in_torch(norm_p, **v)
    checked = 0
    for key in data:
        if match := re.fullmatch(r"mask_(tau|top)_([\d.]+)", key):
            value = float(match[2])
            mask, attention = run(threshold=value) if match[1] == "tau" else run(area=golden.area(value))
            np.testing.assert_array_equal(mask, data[key])
            np.testing.assert_allclose(attention[:, 0], data["fused"], rtol=0, atol=FUSED_ATOL)
            checked += 1
    assert checked >= 2
    mask, attention = run(threshold=float(data["paper_own_threshold"]), rule=SOFTMAX)
    np.testing.assert_array_equal(mask[:, 0], data[f"paper_own_p{norm_p}_mask"])
    softmax = data[f"paper_own_p{norm_p}_softmax"]
    np.testing.assert_allclose(attention[:, 0], softmax.max(1), rtol=2e-5, atol=FUSED_ATOL)
    if engine == "torch":
        maps = AttentionHead(golden.size, norm_p).log_softmax_maps(golden.activations).exp().numpy()
        np.testing.assert_allclose(maps, softmax, rtol=2e-5, atol=FUSED_ATOL)


@pytest.mark.goldens
@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("path", files("G1_dhni_mask", "dhni_mask_edge_constant.npz"), ids=lambda p: p.stem)
def test_golden_constant_blocks(path: Path, engine: str, exporter: Exporter) -> None:
    golden = Golden(path)
    data = golden.data
    run = golden.exported(2, exporter) if engine == "onnxruntime" else lambda **v: golden.in_torch(2, **v)
    mask, attention = run(threshold=float(data["tau"]))
    np.testing.assert_array_equal(mask, data["mask_tau"])
    np.testing.assert_allclose(attention[:, 0], data["fused"], rtol=0, atol=FUSED_ATOL)
    mask, _ = run(area=golden.area(float(data["pct"])))
    np.testing.assert_array_equal(mask[[0, 2]], data["mask_top_imgs02"])


@pytest.mark.goldens
@pytest.mark.parametrize("path", files("G1_dhni_mask", "dhni_mask.npz"), ids=lambda p: p.stem)
def test_golden_official_input(path: Path) -> None:
    data = load(path)
    image = torch.from_numpy(0.5 * data["clf_probe_x"] + 0.5)
    seen = MaskModule.official_input(image).numpy()
    np.testing.assert_allclose(seen, data["clf_probe_seen"], rtol=0, atol=2e-6)


def settings(batch: int, **values: float) -> dict[str, Tensor]:
    every = {"threshold": 0.0, "area": 0.0, "rule": MINMAX, **values}
    return {key: torch.full((batch,), float(value)) for key, value in every.items()}


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("rule", [MINMAX, SOFTMAX])
@pytest.mark.parametrize("area", [0.002, 0.15, 0.5, 1.0])
def test_area_takes_the_highest_pixels(scale: float, rule: float, area: float) -> None:
    """Softmax maps have a tiny range (scale 1e-3) or underflow (scale 300): the search must not care."""
    generator = torch.Generator().manual_seed(3)
    acts = [scale * torch.rand((3, 4, s, s), generator=generator) for s in (16, 8)]
    head = AttentionHead((16, 16))
    mask, _ = head(acts, **settings(3, area=area, rule=rule))
    _, score = head.fuse(acts, torch.full((3, 1, 1, 1), rule))
    count = int(256 * area)
    for found, values in zip(mask.flatten(1), score.flatten(1), strict=True):
        kth = values.sort(descending=True).values[count - 1] if count else math.inf
        torch.testing.assert_close(found, (values >= kth).float())


def test_ties_at_the_cut_are_all_taken() -> None:
    level = torch.tensor([[[0.1, 0.5, 0.5, 0.5, 1.0]]])
    for count in (2.0, 3.0, 4.0):
        cut = area_cut(level, torch.tensor([[[count]]]))
        assert (level >= cut).sum() == 4
    assert (level >= area_cut(level, torch.tensor([[[1.0]]]))).sum() == 1
    assert (level >= area_cut(level, torch.tensor([[[5.0]]]))).sum() == 5


def test_area_counts_truncated() -> None:
    """k = int(H * W * area), where float32 would lose exact products."""
    acts = [torch.arange(100.0).reshape(1, 1, 10, 10)]
    for percent in range(1, 100):
        area = percent / 100
        mask, _ = AttentionHead((10, 10))(acts, **settings(1, area=area))
        # float64's own product is below the integer for a few (0.29 * 100 < 29)
        assert int(mask.sum()) in (int(100 * area), percent)
        mask, _ = AttentionHead((10, 10))(acts, **settings(1, area=MaskSpec(area=area).area_input(100)))
        assert int(mask.sum()) == int(100 * area)
    mask, _ = AttentionHead((10, 10))(acts, **settings(1, area=0.004))
    assert mask.sum() == 0


@pytest.mark.parametrize("size", [(8, 8), (17, 23), (20, 20), (32, 32), (30, 30), (224, 224)])
def test_area_input_gives_the_count_of_the_authors(size: tuple[int, int]) -> None:
    """int(H * W * p) in float64: 400 * 0.29 is 115, and 116 in float32."""
    pixels = size[0] * size[1]
    level = torch.rand(pixels, generator=torch.Generator().manual_seed(0)).reshape(1, 1, *size)
    for percent in (1, 13, 15, 29, 53, 57, 58, 100):
        spec = MaskSpec(area=percent / 100)
        mask, _ = AttentionHead(size)([level], **settings(1, area=spec.area_input(pixels)))
        assert int(mask.sum()) == int(pixels * (percent / 100)), percent
    assert MaskSpec(threshold=0.5).area_input(pixels) == 0.0


def test_thresholds_are_inclusive_for_minmax_only() -> None:
    acts = [torch.tensor([[[[0.0, 1.0], [2.0, 2.0]]]])]
    head = AttentionHead((2, 2))
    mask, attention = head(acts, **settings(1, threshold=1.0))
    assert mask.flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
    _, attention = head(acts, **settings(1, rule=SOFTMAX))
    mask, _ = head(acts, **settings(1, threshold=float(attention.max()), rule=SOFTMAX))
    assert mask.sum() == 0
    assert attention.sum() == pytest.approx(1.0)


def test_dead_and_constant_blocks_add_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    alive = torch.rand((2, 3, 5, 5), generator=generator)
    odd = 0.3 * torch.ones((2, 7, 3, 3))  # resizing 3 -> 7 leaves rounding errors in a constant map
    head = AttentionHead((7, 7))
    alone, _ = head([alive], **settings(2, threshold=0.6))
    with_others, attention = head([odd, alive, 0.0 * alive], **settings(2, threshold=0.6))
    torch.testing.assert_close(alone, with_others)
    assert attention.isfinite().all()
    mask, attention = head([odd], **settings(2, threshold=0.5))
    assert mask.sum() == 0
    assert attention.abs().max() == 0


def test_images_do_not_see_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    acts = [torch.rand((4, 3, s, s), generator=generator) for s in (4, 8)]
    rules = {"threshold": [0.5, 0.0, 0.02, 0.0], "area": [0.0, 0.2, 0.0, 0.4], "rule": [0.0, 0.0, 1.0, 1.0]}
    vectors = {key: torch.tensor(values) for key, values in rules.items()}
    head = AttentionHead((8, 8))
    mask, attention = head(acts, **vectors)
    for i in range(4):
        one = [a[i : i + 1] for a in acts]
        alone = head(one, **{key: v[i : i + 1] for key, v in vectors.items()})
        torch.testing.assert_close(mask[i : i + 1], alone[0])
        torch.testing.assert_close(attention[i : i + 1], alone[1])


@pytest.mark.parametrize("setting", [{"threshold": 0.5}, {"area": 0.3}, {"area": 0.3, "rule": SOFTMAX}])
def test_soft_and_straight_through(setting: dict[str, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    act = torch.rand((2, 3, 6, 6), generator=generator)
    act[:, :, :2] = 0.0  # all-zero activations: the norm's gradient must not be NaN
    head, values = AttentionHead((6, 6), temperature=0.1), settings(2, **setting)
    hard, _ = head([act], **values)
    gradients = []
    for gradient in ("soft", "straight_through"):
        leaf = act.clone().requires_grad_()
        mask, _ = head([leaf], **values, gradient=gradient)
        if gradient == "soft":
            assert ((mask > 0) & (mask < 1)).all()
            torch.testing.assert_close((mask >= 0.5).float(), hard)
        else:
            torch.testing.assert_close(mask, hard)
        (mask * torch.arange(36.0).reshape(1, 1, 6, 6)).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        gradients.append(leaf.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_bad_parameters() -> None:
    with raises_code("E-mask"):
        AttentionHead((4, 4), norm_p=0.5)
    with raises_code("E-mask"):
        AttentionHead((4, 4), temperature=0.0)


# ---- the tapped classifier -------------------------------------------------------------------------------------------


def test_hooks_are_registered_once_and_can_be_taken_off() -> None:
    classifier = tiny_models.TinyClassifier()
    module = MaskModule(classifier, tiny_models.BLOCKS, (8, 8))
    image, values = tiny_models.images(2), settings(2, area=0.25)
    for _ in range(3):
        logits, mask, _attention = module(image, **values)
    assert sum(len(m._forward_hooks) for m in classifier.modules()) == len(tiny_models.BLOCKS)
    torch.testing.assert_close(logits, classifier(image))
    assert mask.shape == (2, 1, 8, 8)
    module.close()
    assert not any(m._forward_hooks for m in classifier.modules())


def test_official_input_changes_the_map_and_not_the_logits() -> None:
    classifier = tiny_models.TinyClassifier()
    image, values = tiny_models.images(2), settings(2, threshold=0.5)
    own = MaskModule(classifier, tiny_models.BLOCKS, (8, 8))
    expected_logits, _, own_map = own(image, **values)
    own.close()
    logits, _, attention = MaskModule(classifier, tiny_models.BLOCKS, (8, 8), input="official")(image, **values)
    torch.testing.assert_close(logits, expected_logits)
    assert (attention - own_map).abs().max() > 0.01
    seen = MaskModule.official_input(image)
    shifted = MaskModule(classifier, tiny_models.BLOCKS, (8, 8))(seen, **values)[2]
    torch.testing.assert_close(attention, shifted)
    with raises_code("E-mask-input-colour"):
        MaskModule.official_input(image[:, :1])


def test_unknown_block_lists_the_nearest_first() -> None:
    classifier = tiny_models.TinyClassifier()
    with raises_code("E-taps-name"):
        MaskModule(classifier, ("stem", "sten"), (8, 8))
    assert not any(m._forward_hooks for m in classifier.modules())


class Tokens(nn.Module):
    """A classifier whose block gives tokens [B, 1 + 16, C] in a tuple, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.block = _Tokens()
        self.unused = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        tokens, _ = self.block(image)
        result: Tensor = tokens.mean(1)
        return result


class _Tokens(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, str]:
        patches = nn.functional.avg_pool2d(image, 2).flatten(2).transpose(1, 2)
        return torch.cat([torch.full_like(patches[:, :1], 9.0), patches], 1), "and something else"


def test_token_blocks() -> None:
    image, values = tiny_models.images(2), settings(2, threshold=0.5)
    with raises_code("E-layout-unknown"):
        MaskModule(Tokens(), ("block",), (8, 8))(image, **values)
    with raises_code("E-taps-silent"):
        MaskModule(Tokens(), ("unused",), (8, 8))(image, **values)
    by_taps = MaskModule(Tokens(), Taps(("block",), (TokenLayout(1, (4, 4)),), "test"), (8, 8))(image, **values)[2]

    def to_map(output: Any) -> Tensor:
        tokens: Tensor = output[0]
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))

    by_transform = MaskModule(Tokens(), ("block",), (8, 8), transforms={"block": to_map})(image, **values)[2]
    torch.testing.assert_close(by_taps, by_transform)
    pooled = nn.functional.avg_pool2d(image, 2)
    torch.testing.assert_close(by_taps, AttentionHead((8, 8)).minmax_map([pooled]))
