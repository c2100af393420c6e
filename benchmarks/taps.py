"""`python -m benchmarks.taps [--only NAME]`: the table of masks in docs/models.md, one network of each family of timm.

Each network has random weights. Its blocks are found as at every export, and what is tapped is compared with timm's
own spatial maps (``forward_intermediates``) of another image than the one that found the layout: at the size that the
network was made for, behind the resize of an image of another shape, and with an input that is not square where the
network takes one. Beside that, and without timm's word: a spot is changed in one corner of the image after the other,
and the middle of what changes in the first tapped map has to follow.
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
#: The smallest network of each file of timm.
NAMES: tuple[str, ...] = ()
#: Height and width of the images behind a resize, and of inputs that are not square: what windows and patches divide.
IMAGE, WIDE = (64, 96), ((96, 160), (112, 224), (224, 448), (128, 256), (192, 384))


def tried(network: nn.Module, model: nn.Module, size: tuple[int, int]) -> str:
    """``same``, or what differs: the mask of a classifier beside that of the library's own maps."""
    with torch.no_grad():
        image = smooth(size, 1)
        model(image)  # what it cannot take at all is no finding about its mask
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
    down = all(middles[0, i][0] < middles[1, i][0] for i in (0, 1))
    across = all(middles[i, 0][1] < middles[i, 1][1] for i in (0, 1))
    return "same" if down and across else f"a spot in a corner changes the map elsewhere: {middles}"


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two maps are equal, up to rounding."""
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-4, rtol=1e-3)


def smooth(size: tuple[int, int], seed: int) -> Tensor:
    """An image with large shapes, ``[1, 3, H, W]``."""
    coarse = torch.rand((1, 3, 6, 7), generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=size, mode="bilinear")


def row(name: str) -> dict[str, str]:
    """What became of one network: ``blocks``, ``square``, ``resized``, ``wide``."""
    import timm

    torch.manual_seed(0)
    found: dict[str, str] = {}
    source = resolve_classifier(f"timm:{name}?weights=random", image_size=IMAGE)
    network, size = source.network, source.model.input_size
    try:
        taps = find_taps(source.model)
        found["blocks"] = ", ".join(n.removeprefix("network.") for n in taps.names)
    except EdgepureError as error:
        return {"blocks": f"refused ({error.code})"}
    found["square"] = attempt(lambda: tried(network, network, size))
    found["resized"] = attempt(lambda: tried(network, source.model, IMAGE))
    found["wide"] = "takes none"
    for wide in WIDE:
        for options in ({"img_size": wide}, {}):
            try:
                made = timm.create_model(name, num_classes=10, **options).eval()
                with torch.no_grad():
                    made(smooth(wide, 0))
            except Exception:  # it takes no such size: the next one
                continue
            model = Preprocessed(made, Transform(), wide).eval()
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
    passes = [n for n, r in rows.items() if r.get("square") == r.get("resized") == "same"]
    wide = [n for n in passes if rows[n]["wide"].startswith("same")]
    refused: dict[str, list[str]] = {}
    for name, found in rows.items():
        if name not in passes:
            told = (v for v in found.values() if v.startswith(("refused", "not exported", "FAILED")))
            reason = next(told, found.get("square", "") + "; " + found.get("resized", ""))
            refused.setdefault(reason, []).append(name)
    square = [n for n in passes if n not in wide]
    return [
        "| | networks |",
        "|---|---|",
        f"| as timm's maps, square and not ({len(wide)}) | {', '.join(wide)} |",
        f"| as timm's maps, square; takes no other input ({len(square)}) | {', '.join(square)} |",
        *(f"| {reason} ({len(names)}) | {', '.join(names)} |" for reason, names in refused.items()),
    ]


def main() -> None:
    """Try all, keep results/taps.json, write the table into docs/models.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.taps", description=(__doc__ or "").strip())
    parser.add_argument("--only", nargs="*", default=NAMES, help="these networks, and write nothing")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: dict[str, dict[str, str]] = {}
    for name in asked.only:
        rows[name] = attempt_row(name)
        print(name, json.dumps(rows[name]), flush=True)
        gc.collect()
    if asked.only is NAMES:
        import timm

        facts: dict[str, Any] = {"timm": timm.__version__, "torch": torch.__version__, "networks": rows}
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        lines = [BEGIN, f"timm {timm.__version__}, {len(rows)} networks.", "", *table(rows), END]
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
