"""`python -m benchmarks.taps [--only NAME]`: the table of masks in docs/models.md, one network of each family of timm.

Each network has random weights. Its blocks are found as at every export, and what is tapped is compared with timm's
own spatial maps (``forward_intermediates``) of another image than the one that found the layout: behind the resize of
an image that is not square, and with an input that is not square where the network takes one. Beside that, and
without timm's word: a spot is changed in one corner of the image after the other, and the middle of what changes in
the first tapped map has to follow.
"""

from __future__ import annotations

import argparse
import gc
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgepure.errors import EdgepureError
from edgepure_export.graphs.attention import AttentionHead, MaskModule
from edgepure_export.graphs.taps import find_taps
from edgepure_export.sources.preprocessing import Preprocessed, Transform
from edgepure_export.sources.resolve import resolve_classifier

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "models.md", ROOT / "docs" / "results" / "taps.json"
BEGIN, END = "<!-- made by benchmarks/taps.py: begin -->", "<!-- end of taps -->"
#: The smallest networks of the files of timm.
_NAMES = """
beit_base_patch16_224 botnet26t_256 halonet26t test_byobnet mobileone_s0 cait_xxs24_224 coat_tiny coat_lite_tiny
convit_tiny convmixer_768_32 convnext_atto convnextv2_atto cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_s
cspnext_tiny davit_tiny deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 deit3_small_patch16_224 densenet121
dla46_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0 test_efficientnet efficientnet_b0
mobilenetv2_050 efficientvim_m1 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 vit_small_patch16_rope_224
vit_small_patch16_dinov3 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_050 hardcorenas_a
hgnet_tiny hiera_tiny_224 sam2_hiera_tiny hrnet_w18_small iformer_t inception_next_atto inception_v3 lcnetv2_small
levit_128s levit_conv_128s lowformer_b0 test_mambaout coatnet_pico_rw_224 maxvit_pico_rw_256 poolformer_s12
caformer_s18 mixer_s32_224 gmlp_ti16_224 resmlp_12_224 mobilenetv3_small_050 mobilenetv4_conv_small_035
mobilenetv4_hybrid_medium mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny nextvit_small test_nfnet pit_ti_224
pvt_v2_b0 rdnet_tiny regnetx_002 repghostnet_050 repvit_m0_9 res2net50_48w_2s resnest14d test_resnet resnet18
resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs
swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m
twins_pcpvt_small twins_svt_small vgg11 visformer_tiny test_vit flexivit_small vit_small_patch14_reg4_dinov2
vit_tiny_r_s16_p8_224 test_vit_relpos samvit_base_patch16_224 vitamin_small_224 volo_d1_224 vovnet39a xception41
xcit_nano_12_p16_224 naflexvit_base_patch16_gap
"""
NAMES = tuple(_NAMES.split())
#: Height and width of the images behind a resize, and of inputs that are not square: what windows and patches divide.
IMAGE, WIDE = (64, 96), ((96, 160), (112, 224), (224, 448), (128, 256), (192, 384))


def tried(network: nn.Module, model: nn.Module, size: tuple[int, int]) -> str:
    """``same``, or what differs: the mask of a classifier beside that of the library's own maps."""
    with torch.no_grad():
        image = smooth(size, 1)
        taps = find_taps(model)
        mask = MaskModule(model, taps, size)
        try:
            zero, area = torch.zeros(1), torch.full((1,), 0.25)
            got = mask(image, zero, area, zero)[1]
            mask.classifier(image)
            found = mask.activations()
            seen = model.preprocess(image) if isinstance(model, Preprocessed) else image
            maps = network.forward_intermediates(seen, output_fmt="NCHW", intermediates_only=True, norm=False)  # type: ignore[operator]
            own = [next((m for m in maps if same(m, one)), None) for one in found]
            if all(m is None for m in own):  # HRNet: timm gives what lies behind a layer more
                followed = follows(mask, image)
                return "same (timm gives other maps; a spot was followed)" if followed == "same" else followed
            if any(m is None for m in own):
                return f"{sum(m is None for m in own)} of {len(own)} maps are none of timm's"
            right, _ = AttentionHead(size)([m for m in own if m is not None], zero, area, zero)
            if not torch.equal(right, got):
                return f"{int((right != got).sum())} pixels of the mask differ"
            return follows(mask, image)
        finally:
            mask.close()


def follows(mask: MaskModule, image: Tensor) -> str:
    """Whether the first tapped map changes where the image does: ``same``, or where it does not."""
    h, w = int(image.shape[2]), int(image.shape[3])
    mask.classifier(image)
    before = mask.activations()[0]
    middles = {}
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        spot = image.clone()
        top, left = corner[0] * (h - h // 4), corner[1] * (w - w // 4)
        spot[:, :, top : top + h // 4, left : left + w // 4] = torch.rand(1, 3, h // 4, w // 4)
        mask.classifier(spot)
        change = (mask.activations()[0] - before).square().sum((0, 1))
        rows, columns = (torch.linspace(0.0, 1.0, n) for n in change.shape)
        total = change.sum()
        middles[corner] = float((change.sum(1) * rows).sum() / total), float((change.sum(0) * columns).sum() / total)
    down = [middles[1, i][0] - middles[0, i][0] for i in (0, 1)]
    across = [middles[i, 1][1] - middles[i, 0][1] for i in (0, 1)]
    if max(map(abs, (*down, *across))) < 0.02:
        return "same (after its first tapped block a spot is everywhere)"
    return "same" if min(*down, *across) > 0.0 else f"a spot in a corner changes the map elsewhere: {middles}"


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two maps are equal, up to rounding."""
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4, rtol=1e-3)


def awake(network: nn.Module) -> None:
    """Give weights to layer norms that begin at 0 (Swin V2): else each block only passes on what a norm of constant
    length gave, and the mask would be rounding."""
    for module in network.modules():
        if isinstance(module, nn.LayerNorm) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)


def smooth(size: tuple[int, int], seed: int) -> Tensor:
    """An image with large shapes, ``[1, 3, H, W]``."""
    coarse = torch.rand((1, 3, 6, 7), generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=size, mode="bilinear")


def row(name: str) -> dict[str, str]:
    """What became of one network: ``blocks``, ``resized``, ``wide``."""
    import timm

    torch.manual_seed(0)
    found: dict[str, str] = {}
    source = resolve_classifier(f"timm:{name}?weights=random", image_size=IMAGE)
    awake(source.network)
    try:
        taps = find_taps(source.model)
        found["blocks"] = ", ".join(n.removeprefix("network.") for n in taps.names)
    except EdgepureError as error:
        return {"blocks": f"refused ({error.code})"}
    found["resized"] = attempt(lambda: tried(source.network, source.model, IMAGE))
    found["wide"] = "takes none"
    for wide in WIDE:
        for options in ({"img_size": wide}, {}):
            try:
                made = timm.create_model(name, num_classes=10, **options).eval()
                awake(made)
                with torch.no_grad():
                    made(smooth(wide, 0))
            except Exception:  # it takes no such size: the next one
                continue
            model = Preprocessed(made, Transform(size=wide), wide).eval()
            found["wide"] = f"{attempt(lambda m=made, p=model, w=wide: tried(m, p, w))}, {wide[0]} x {wide[1]}"  # type: ignore[misc]
            return found
    return found


def attempt(work: Callable[[], str]) -> str:
    """Its result; of an error its code, or its first words."""
    try:
        return work()
    except EdgepureError as error:
        return f"refused ({error.code})"
    except Exception as error:
        return f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:100]}"


def table(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The lines of the page: what passes, in one; what is refused, each with its reason."""
    passes = [n for n, r in rows.items() if r.get("resized", "").startswith("same")]
    wide = [n for n in passes if rows[n]["wide"].startswith("same")]
    other = [n for n in passes if not rows[n]["wide"].startswith(("same", "takes none"))]
    refused: dict[str, list[str]] = {}
    for name, found in rows.items():
        if name not in passes:
            told = (v for v in found.values() if v.startswith(("refused", "not exported", "FAILED")))
            reason = next(told, found.get("resized", ""))
            refused.setdefault(reason, []).append(name)
    square = [n for n in passes if n not in wide and n not in other]
    return [
        "| | networks |",
        "|---|---|",
        f"| as timm's maps, square and not ({len(wide)}) | {', '.join(wide)} |",
        f"| as timm's maps, square; takes no other input ({len(square)}) | {', '.join(square)} |",
        *(f"| square as timm's maps, else: {rows[n]['wide']} | {n} |" for n in other),
        *(f"| {reason} ({len(names)}) | {', '.join(names)} |" for reason, names in refused.items()),
    ]


def main() -> None:
    """Try those that results/taps.json does not have of these versions, then write the table into docs/models.md."""
    import timm

    parser = argparse.ArgumentParser(prog="python -m benchmarks.taps", description=(__doc__ or "").strip())
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these networks, and write nothing")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    versions = {"timm": timm.__version__, "torch": torch.__version__}
    kept: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    same_versions = {name: kept.get(name) for name in versions} == versions
    rows: dict[str, dict[str, str]] = kept["networks"] if same_versions and not asked.only else {}
    for name in asked.only or [name for name in NAMES if name not in rows]:
        rows[name] = attempt_row(name)
        print(name, json.dumps(rows[name]), flush=True)
        if not asked.only:
            RESULTS.write_text(json.dumps({**versions, "networks": rows}, indent=1) + "\n", encoding="utf-8")
        gc.collect()
    if not asked.only:
        lines = [BEGIN, f"timm {versions['timm']}, {len(rows)} of {len(NAMES)} networks.", "", *table(rows), END]
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(before + "\n".join(lines) + rest.partition(END)[2], encoding="utf-8")


def attempt_row(name: str) -> dict[str, str]:
    """`row`, or why there is none."""
    try:
        return row(name)
    except EdgepureError as error:
        return {"blocks": f"not exported ({error.code})"}
    except Exception as error:
        return {"blocks": f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:100]}"}


if __name__ == "__main__":
    main()
