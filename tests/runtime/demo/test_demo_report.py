"""report.json and report.html: what they say, and that the page stands alone."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from chromium import not_cut
from codes import raises_code
from PIL import Image

from edgepure.demo.page import render, write
from edgepure.demo.report import ColumnProtocol, DemoReport, Gallery, MethodScores
from edgepure.intervals import clopper_pearson
from edgepure.purify.scores import Score
from edgepure.report.environment import environment
from edgepure.report.pictures import Picture, png_data_uri

#: Elements that have no end tag.
VOID = {"meta", "img", "br", "hr", "link", "input"}


def picture(title: str = "clean", channels: int = 1, mask: bool = False) -> Picture:
    pixels = np.linspace(0, 1, channels * 16, dtype=np.float32).reshape(channels, 4, 4)
    return Picture(pixels, title, "7", right=title == "clean", mask=np.eye(4, dtype=bool) if mask else None)


@pytest.fixture
def report() -> DemoReport:
    score = Score(128, 110, single=100, worst=80)
    return DemoReport(
        title="Digits <purified>",
        summary="Fish & chips",
        default="hetero",
        plain={"clean": Score(360, 357), "attacked": Score(360, 2), "whitebox": Score(128, 35)},
        methods=[
            MethodScores("uniform", "all over", 4.0, 20.0, 1.25, Score(360, 355, 350, 340), score, None),
            MethodScores("hetero", "mask <b>", 5.5, 27.5, None, Score(360, 355, 350, 340), score, score),
        ],
        protocols={
            "clean": ColumnProtocol(images="360 test images", decision="majority of 5"),
            "whitebox": ColumnProtocol(
                images="128 test images",
                decision="majority of 5",
                attack="PGD",
                norm="Linf",
                eps=0.05,
                steps=15,
                step_size=0.01,
                eot=3,
            ),
            "plain_whitebox": ColumnProtocol(
                images="128 test images",
                decision="one answer",
                attack="PGD",
                norm="Linf",
                eps=0.05,
                steps=15,
                step_size=0.01,
            ),
        },
        galleries=(Gallery("Before", "note", (("true class 7", (picture(), picture("mask", mask=True))),)),),
        plan=[{"stage": "inpaint", "t": 200.0, "to": 100.0}, {"stage": "denoise", "t": 100.0, "to": -1.0}],
        timings={"purify": 1.5},
        facts={"parity": {"step": 1.5e-6}, "device": "cpu"},
        notes=("One note.",),
    )


class Balance(HTMLParser):
    """Checks that tags close in order and collects what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "action", "data", "srcset")]
        assert tag not in ("script", "link", "iframe", "object", "embed")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_refers_to_nothing_outside(report: DemoReport) -> None:
    page = render(report)
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert not_cut(page)
    assert parser.references
    assert all(r.startswith("data:image/png;base64,") for r in parser.references)
    assert "url(" not in page
    assert "@import" not in page


def test_text_is_escaped(report: DemoReport) -> None:
    page = render(report)
    assert "Digits &lt;purified&gt;" in page
    assert "Fish &amp; chips" in page
    assert "mask &lt;b&gt;" in page


def test_json_has_the_promised_shape(report: DemoReport, tmp_path: Path) -> None:
    html_path, json_path = write(report, tmp_path / "new" / "out")
    data = json.loads(json_path.read_text())
    assert data["plain"]["clean"] == pytest.approx(357 / 360, abs=1e-6)
    assert data["plain"]["attacked"] == pytest.approx(2 / 360, abs=1e-6)
    assert data["plain"]["whitebox"] == pytest.approx(35 / 128, abs=1e-6)
    uniform, hetero = data["methods"]
    assert {"name", "unet_calls", "clean", "attacked", "whitebox"} <= set(uniform)
    assert uniform["unet_calls"] == 4
    assert uniform["whitebox"] is None
    assert "whitebox" not in uniform["interval95"]
    assert hetero["whitebox"] == pytest.approx(110 / 128, abs=1e-6)
    assert hetero["interval95"]["whitebox"] == pytest.approx(clopper_pearson(110, 128), abs=1e-4)
    assert hetero["single_purification"]["whitebox"] == pytest.approx(100 / 128, abs=1e-6)
    assert hetero["all_purifications_right"]["whitebox"] == pytest.approx(80 / 128, abs=1e-6)
    assert hetero["images"] == {"clean": 360, "attacked": 128, "whitebox": 128}
    assert data["protocol"]["whitebox"]["eot"] == 3
    assert html_path.read_text(encoding="utf-8") == render(report)
    assert sorted(p.name for p in json_path.parent.iterdir()) == ["report.html", "report.json"]  # no temporary left


def test_a_column_that_was_not_measured_is_not_shown(report: DemoReport) -> None:
    without = replace(
        report,
        plain={"clean": Score(4, 4), "attacked": Score(4, 0)},
        methods=[replace(m, whitebox=None) for m in report.methods],
    )
    assert "White-box" in render(report)
    assert "White-box" not in render(without)
    assert "through the defence" not in render(without)
    assert without.to_dict()["plain"]["whitebox"] is None


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_survives_the_data_uri(channels: int) -> None:
    shown = picture(channels=channels)
    uri = png_data_uri(shown)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    expected = np.rint(255 * shown.pixels).astype(np.uint8)
    assert image.mode == ("L" if channels == 1 else "RGB")
    np.testing.assert_array_equal(np.asarray(image), expected[0] if channels == 1 else expected.transpose(1, 2, 0))


@pytest.mark.parametrize("channels", [1, 3])
def test_mask_tints_its_pixels_only(channels: int) -> None:
    shown = picture(channels=channels, mask=True)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(png_data_uri(shown).partition(",")[2]))))
    plain = np.rint(255 * shown.pixels).astype(np.uint8).transpose(1, 2, 0)
    changed = (image != np.broadcast_to(plain, image.shape)).any(axis=2)
    np.testing.assert_array_equal(changed, np.eye(4, dtype=bool))


def test_unwritable_folder_is_one_sentence(report: DemoReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with raises_code("E-report-place"):
        write(report, tmp_path / "file")


def test_an_old_report_stays_when_the_new_one_fails(report: DemoReport, tmp_path: Path) -> None:
    write(report, tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    broken = replace(report, facts={"x": object()})
    with pytest.raises(TypeError):
        write(broken, tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def test_environment_names_versions() -> None:
    found = environment()
    assert re.fullmatch(r"\d+\.\d+.*", found["numpy"])
    assert re.fullmatch(r"\d+\.\d+.*", found["onnxruntime"])
    assert int(found["cores"]) >= 1
    assert all(isinstance(v, str) and v for v in found.values())


@pytest.mark.needs("openvino")
def test_environment_names_the_engines_that_computed() -> None:
    found = environment("openvino")
    assert re.fullmatch(r"\d+\.\d+.*", found["openvino"]) and "onnxruntime" not in found
    assert {"openvino", "onnxruntime"} <= set(environment("openvino", "cpu"))


def test_protocol_sentence_names_everything() -> None:
    protocol = ColumnProtocol(
        images="128 test images",
        decision="majority of 5 purifications",
        seeds={"noise": 7, "attack": 8},
        attack="PGD-EOT",
        norm="Linf",
        eps=0.05,
        steps=15,
        step_size=0.0125,
        random_start=True,
        eot=3,
        gradient="exact",
        target="the whole pipeline",
        note="Mask detached.",
    )
    assert protocol.sentence() == (
        "PGD-EOT, Linf, eps 0.05, 15 steps of 0.0125, random start; EOT 3; on the whole pipeline; gradient: exact; "
        "128 test images; majority of 5 purifications; seeds: noise 7, attack 8. Mask detached."
    )
    assert protocol.to_dict()["eot"] == 3


def test_protocol_of_clean_images_names_no_attack() -> None:
    assert ColumnProtocol(images="5 images", decision="one answer").sentence() == "5 images; one answer."
