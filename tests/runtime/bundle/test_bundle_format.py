"""`docs/bundle-format.md` says what the code does: keys, columns, limits, and the numbers of the noise stream."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from edgepure.bundle import calibration, entries, manifest, manifest_text, selftest
from edgepure.bundle.task import TASK_OUTPUTS, TaskEntry
from edgepure.methods import EpsSpec
from edgepure.methods.presets import MaskSpec, Preset, VoteSpec
from edgepure.methods.ssni import SsniSpec
from edgepure.rows.philox import Stream, normals
from edgepure.rows.plan import COLUMNS, LEARNED_COLUMNS, NO_CLIP
from edgepure.rows.schedule import ScheduleSpec

TEXT = (Path(__file__).parents[3] / "docs" / "bundle-format.md").read_text(encoding="utf-8")
MODELS = [
    manifest.Manifest,
    manifest.ImageSpec,
    entries.GraphEntry,
    entries.TensorEntry,
    entries.AttentionEntry,
    entries.Provenance,
    entries.FileEntry,
    ScheduleSpec,
    Preset,
    MaskSpec,
    VoteSpec,
    SsniSpec,
    EpsSpec,
    calibration.Calibration,
    calibration.ProbeCalibration,
    calibration.ScoreNorms,
    calibration.Separation,
    calibration.LinearReweighting,
    calibration.SigmoidReweighting,
    calibration.FirstCall,
    calibration.MaskCalibration,
    calibration.MaskArea,
    calibration.DataRecord,
    TaskEntry,
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_key_is_explained(model: type[BaseModel]) -> None:
    missing = [name for name in model.model_fields if f"`{name}`" not in TEXT]
    assert missing == []


def test_columns_are_listed_in_order() -> None:
    rows = re.findall(r"^\| (`t` .*|`x0_eps` .*) \|$", TEXT, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(COLUMNS)
    assert ", ".join(f"`{c}`" for c in LEARNED_COLUMNS) in TEXT
    assert f"`coeffs [B,{len(COLUMNS)}]`" in TEXT
    assert f"`coeffs [B,{len(COLUMNS) + len(LEARNED_COLUMNS)}]`" in TEXT
    assert f'"no clipping" is -1e30 and {NO_CLIP:.0e}'.replace("e+", "e") in TEXT


def test_graph_signatures_are_those_of_the_table() -> None:
    image = manifest.ImageSpec(channels=3, height=5, width=7)
    section = TEXT[TEXT.index("## The graphs") :]
    for graph in entries.GRAPH_NAMES:
        if graph == "task":  # its outputs are those of its kind
            continue
        row = re.search(rf"^\| `{graph}` \| (.*) \| (.*) \|$", section, re.MULTILINE)
        assert row is not None
        for cell, tensors in zip(row.groups(), entries.graph_signature(graph, image, 11), strict=True):
            assert re.findall(r"`(\w+)", cell) == [t.name for t in tensors]


def test_outputs_of_tasks_are_those_of_the_table() -> None:
    section = TEXT[TEXT.index("### task") :]
    for kind, names in TASK_OUTPUTS.items():
        row = re.search(rf"^\| `{kind}` \| (.*) \|$", section, re.MULTILINE)
        assert row is not None
        assert re.findall(r"`(\w+) \[", row[1]) == list(names)


def test_limits_are_stated() -> None:
    assert f"at most {manifest_text.MAX_MANIFEST_BYTES >> 20} MiB" in TEXT
    assert f"more than {selftest.MAX_SELFTEST_BYTES >> 20} MiB" in TEXT


def test_noise_table_holds_the_numbers_of_the_stream() -> None:
    pattern = r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([-.\d ]+) \|$"
    rows = re.findall(pattern, TEXT, re.MULTILINE)
    assert len(rows) == 2
    for seed, stream, image, vote, row, values in rows:
        found = normals(int(seed), int(image), Stream(int(stream)), int(vote), (int(row),), 6)[0]
        np.testing.assert_allclose(found, [float(v) for v in values.split()], atol=1e-7)


def test_stream_numbers_are_listed() -> None:
    assert [s.name for s in Stream] == ["ROW", "OUT", "CLOSING", "PROBE", "GRID"]
    table = TEXT[TEXT.index("| `stream` | noise |") :]
    words = ["`noise` of the rows of a purification", "`noise_out`", "closing noise", "rows of a probe", "grid"]
    for stream, word in zip(Stream, words, strict=True):
        assert re.search(rf"^\| {int(stream)} \| .*{word}", table, re.MULTILINE)
