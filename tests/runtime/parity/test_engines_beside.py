"""One engine of a bundle beside another: precisions, given images, the report."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import not_cut
from cli_process import run
from codes import raises_code
from tiny_bundle import FIXED_MAP, images, rehash

import edgepure
from edgepure.bundle.manifest import Manifest
from edgepure.parity.executors import EngineExecutor, PresetRun, rows_to_keep
from edgepure.parity.images import image_checks
from edgepure.parity.report import render, write_report
from edgepure.parity.side_by_side import ImageSet
from edgepure.parity.tolerances import graph_tolerance, image_tolerance, row_tolerance
from edgepure.parity.verify import verify, verify_engines


def add_variant(bundle: Path, offset: float) -> None:
    """An "int8" variant: the step graph and the UNet with a map that is off by ``offset``."""
    (bundle / "off.bin").write_bytes((FIXED_MAP + np.float32(offset)).tobytes())
    graphs: dict[str, Any] = {}
    manifest = Manifest.from_json((bundle / "bundle.json").read_text())
    for name in ("step", "unet"):
        data = (bundle / f"{name}.onnx").read_bytes()
        assert data.count(b"weights.bin") == 1
        model = onnx_with_location(data, "off.bin")
        (bundle / f"int8.{name}.onnx").write_bytes(model)
        entry = manifest.graphs[name]  # type: ignore[index]
        graphs[name] = entry.model_copy(update={"file": f"int8.{name}.onnx", "precision": "int8"})
    rehash(bundle, variants={"int8": graphs})


def onnx_with_location(data: bytes, location: str) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    return bytes(model.SerializeToString())


@pytest.fixture
def two(own_bundle: Path) -> Path:
    """A bundle with a variant that is off by little."""
    add_variant(own_bundle, 0.1)
    return own_bundle


def test_a_variant_beside_fp32_on_given_images(two: Path) -> None:
    many = images(40, seed=8)
    sets = [ImageSet("clean", many, np.arange(40) % 2), ImageSet("attacked", np.clip(many + 0.02, 0, 1))]
    found = verify_engines(two, [("cpu", "fp32"), ("cpu", "int8")], threads=1, images=sets)
    assert found, str(found)
    first, second = found.each
    assert (first.reference, second.reference) == ("the recorded vectors", "cpu fp32")
    assert {part.to_json()["data"] for part in second.levels[3].parts} == {"self-test", "clean", "attacked"}
    drift = second.levels[1].parts[0].to_json()
    errors = [row["relative_l2"] for row in drift["rows"]]
    assert 0.0 < errors[0] < errors[-1] < 0.25
    assert drift["growth"] > 1.0
    with edgepure.load(two, threads=1) as purifier:  # fp32 against itself: nothing differs
        same = verify(two, reference=EngineExecutor(purifier), images=sets, threads=1)
    assert same and max(check.max_error for check in same.checks) == 0.0


def test_a_variant_that_is_too_far_off_fails_where_fp32_passes(own_bundle: Path) -> None:
    add_variant(own_bundle, 40.0)
    found = verify_engines(own_bundle, [("cpu", "fp32"), ("cpu", "int8")], threads=1)
    assert [bool(one) for one in found.each] == [True, False]
    assert [level.status for level in found.each[1].levels[:3]] == ["failed"] * 3


def test_images_need_something_to_compare_with(two: Path) -> None:
    with raises_code("E-verify-reference"):
        verify(two, images=[ImageSet("clean", images(2))], threads=1)
    with raises_code("E-preset-unknown"):
        verify(two, presets=["none"], threads=1)


def test_the_command_compares_precisions_and_writes_a_report(two: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=images(12, seed=3), labels=np.arange(12) % 2)
    page = tmp_path / "new" / "parity.html"
    done = run(
        "verify",
        two,
        "--precision",
        "int8",
        "--data",
        tmp_path / "data.npz",
        "--preset",
        "heterogeneous",
        "--limit",
        "10",
        "--report",
        page,
        "--json",
    )
    assert done.code == 0, done.stderr
    fp32, int8 = done.json["verifications"]
    assert (fp32["precision"], int8["precision"], int8["reference"]) == ("fp32", "int8", "cpu fp32")
    clean = [c for c in int8["levels"][3]["comparisons"] if c["data"] == "clean"]
    assert [(c["preset"], c["images"]) for c in clean] == [("heterogeneous", 10)]
    assert "accuracy_deployed" in clean[0]
    assert "Level 4: decisions, passed" in page.read_text()
    plain = run("verify", two, "--precision", "fp32,int8")
    assert plain.code == 0 and "compared with cpu fp32" in plain.stdout and "x 1." in plain.stdout
    run("verify", two, "--data", tmp_path / "data.npz").fails(2, "nothing to compare the images with")
    run("verify", two, "--against", "jax").fails(2, "only choice is torch")
    run("verify", two, "--classifier", "timm:resnet18").fails(2, "--against torch")
    run("verify", two, "--providers", "cpu,,cuda").fails(2, "separated by commas")


def test_the_command_finds_the_layer_of_a_broken_variant(own_bundle: Path, tmp_path: Path) -> None:
    add_variant(own_bundle, 40.0)
    done = run("verify", own_bundle, "--precision", "fp32,int8", "--graphs-only", "--report", tmp_path / "p.html")
    done.fails(6, "comparisons fail", "do not use this bundle")
    assert "the first layer that leaves the fp32 graph on cpu is" in done.stdout
    page = (tmp_path / "p.html").read_text()
    assert "Where unet diverges" in page and "(Mul, node v" in page
    assert 'class="ring bad"' in page  # the layer in its plot


class Tags(HTMLParser):
    """Every tag that opens closes again, and nothing is fetched from elsewhere."""

    VOID = frozenset({"meta", "img", "br", "line", "rect", "circle", "polyline", "polygon"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        assert all(not (value or "").startswith(("http", "//")) for name, value in attrs if name in ("src", "href"))
        if tag not in self.VOID or tag in ("rect", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_shows_what_was_measured(two: Path, tmp_path: Path) -> None:
    sets = [ImageSet("clean", images(12, seed=5))]
    found = verify_engines(two, [("cpu", "fp32"), ("cpu", "int8")], threads=1, images=sets).each
    text = render(found)
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert not_cut(text)
    drifts = sum(len(one.levels[1].parts) for one in found)
    shown = sum(len(one.differing) for one in found)
    assert tags.seen["svg"] == drifts + 2  # the margins of the clean images: the variant's shift, and a redraw's
    assert shown >= 8 and tags.seen["img"] >= 4 * shown
    assert "reference mask" in text and "difference x" in text
    write_report(tmp_path / "r.html", found)
    assert (tmp_path / "r.html").read_text() == text
    json.dumps([one.to_json() for one in found], allow_nan=False)


def test_another_plan_is_judged_apart_from_the_image(tiny_bundle: Path) -> None:
    """An image at the border of two noise levels is compared along the reference's plan."""
    some = images(3, seed=2)
    with edgepure.load(tiny_bundle, threads=1) as purifier:
        executor, preset = EngineExecutor(purifier), purifier.preset("adaptive")
        deployed = executor.run(some, preset, 5)
        for changed, precision, passes in ((1, "fp16", True), (3, "fp16", False), (3, "int8", True)):
            other = purifier.planner.plan(preset, 6.0)
            assert other not in deployed.plans
            plans = (*[other] * changed, *deployed.plans[changed:])
            purified = executor.trajectory(some, plans, None, 5, ()).purified
            reference = PresetRun(purified, purifier.logits(purified), None, plans)
            image, logits, plan = image_checks("adaptive", precision, some, 5, reference, deployed, executor)
            assert (image.quantity, image.max_error, logits.max_error) == ("purified (reference's plan)", 0.0, 0.0)
            assert (plan.quantity, plan.mean_error) == ("plans", changed / 3)
            assert bool(plan) is passes


def test_rows_to_keep() -> None:
    assert rows_to_keep(5, 10) == (0, 1, 2, 3, 4)
    assert rows_to_keep(0, 10) == ()
    assert rows_to_keep(100, 10, 50) == (0, 25, 50, 74, 99)
    assert rows_to_keep(100, 1 << 40) == (0, 99)


def test_tolerances_grow_with_the_rows_and_the_precision() -> None:
    assert row_tolerance("fp32", 0) == graph_tolerance("step", "fp32")
    assert row_tolerance("fp32", 99).relative_l2 == pytest.approx(10 * graph_tolerance("step", "fp32").relative_l2)
    assert image_tolerance("fp16", 4).max_abs == pytest.approx(graph_tolerance("step", "fp16").max_abs)
    order = [graph_tolerance("unet", p) for p in ("fp32", "fp16", "bf16", "int8", "fp8")]
    assert [t.relative_l2 for t in order] == sorted(t.relative_l2 for t in order)
    with raises_code("E-tolerance"):
        graph_tolerance("unet", "int4")
