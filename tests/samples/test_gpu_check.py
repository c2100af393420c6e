"""The command that checks a GPU: without one it says so, and whatever a section does, its results are kept."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from edgepure.errors import ProviderError
from edgepure.machine import nvidia
from samples.gpu_check import goals, report, run
from samples.gpu_check import section as section_module
from samples.gpu_check.context import Context
from samples.gpu_check.engines import EngineName, engine_names
from samples.gpu_check.networks import NETWORKS
from samples.gpu_check.sections import BY_NAME, SECTIONS, Section

pytestmark = pytest.mark.samples


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context("cpu", tmp_path / "partial.json", tmp_path / "work", time.time() + 600, quick=True)


def read(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(context.file.read_text())
    return found


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "find", lambda: nvidia.Driver(fault="no NVIDIA driver on this machine (libcuda)"))


@pytest.mark.usefixtures("_no_gpu")
def test_without_a_gpu_it_lists_everything_as_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 0
    said = capsys.readouterr().out
    data = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert list(data["sections"]) == [section.name for section in SECTIONS]
    for section in data["sections"].values():
        assert section["state"] == "could not run"
        assert section["reason"] == "no CUDA device: no NVIDIA driver on this machine (libcuda)"
    text = (tmp_path / "out" / "gpu_check.md").read_text()
    assert text.startswith("# GPU check: no CUDA device")
    assert "| adm256 | all of it | no CUDA device: no NVIDIA driver" in text
    assert f"{len(SECTIONS)} sections or parts could not be run" in said


def test_every_section_can_be_found() -> None:
    from importlib import import_module

    for section in SECTIONS:
        module, _, name = section.function.partition(":")
        assert callable(getattr(import_module(f"samples.gpu_check.{module}"), name))
        assert section.argument is None or section.argument in NETWORKS


def fake(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Section:
    """A section that runs this code in its process instead of the real one."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nfile=$5\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(run.sys, "executable", str(program))
    monkeypatch.setattr(run, "POLL", 0.05)
    monkeypatch.setattr(run, "GRACE", 0.2)
    return BY_NAME["noise"]


def outcome(tmp_path: Path, section: Section, seconds: float = 60.0) -> tuple[int, dict[str, Any]]:
    check = run.Run(tmp_path / "out", tmp_path / "work", "cpu", quick=True)
    code = check.all([section], seconds)
    return code, json.loads((tmp_path / "out" / "gpu_check.json").read_text())["sections"][section.name]


GOOD = '{"results": [{"part": "a", "ok": true}], "missing": [{"part": "b", "why": "c"}]}'


def test_a_section_that_finishes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    section = fake(f"echo '{GOOD}' > $file", monkeypatch, tmp_path)
    code, found = outcome(tmp_path, section)
    assert code == 0
    assert (found["state"], found["results"][0]["part"], found["missing"][0]["why"]) == ("finished", "a", "c")
    fake("exit 3", monkeypatch, tmp_path)
    assert outcome(tmp_path, section) == (0, found), "what is finished is not run again"


def test_a_section_that_crashes_keeps_what_it_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    section = fake(f"echo '{GOOD}' > $file; kill -SEGV $$", monkeypatch, tmp_path)
    code, found = outcome(tmp_path, section)
    assert code == 1
    assert found["state"] == "crashed" and "SIGSEGV" in found["reason"]
    assert found["results"] == [{"part": "a", "ok": True}]


PYTHON = sys.executable
PROGRAM = """#!{python}
import json, os, signal, sys
known = json.load(open(sys.argv[5]))["results"]
assert all(r["part"] != "good" or r["value"] == 7 for r in known)
done = {{r["part"] for r in known}}
results, missing = known + [{{"part": "good", "ok": True, "value": 7}}] * ("good" not in done), []
def write(running):
    with open(sys.argv[5], "w") as file:
        json.dump({{"results": results, "missing": missing, "running": running}}, file)
{code}
write([])
"""


def program(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Section:
    """A section that takes up its results as the real one does, and then runs this Python code."""
    section = fake("", monkeypatch, tmp_path)
    (tmp_path / "python").write_text(PROGRAM.format(python=PYTHON, code=code))
    return section


def test_the_section_goes_on_behind_a_part_that_ends_its_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = """
for part in ("crash 1", "crash 2"):
    if part not in done:
        write(["outer", part])
        os.kill(os.getpid(), signal.SIGKILL)
results += [{"part": "last", "ok": True}]
"""
    code_of_exit, found = outcome(tmp_path, program(code, monkeypatch, tmp_path))
    assert (code_of_exit, found["state"]) == (1, "finished")
    assert [(r["part"], r["ok"]) for r in found["results"]] == [
        ("good", True),
        ("crash 1", False),
        ("crash 2", False),
        ("last", True),
    ]
    assert found["results"][1]["error"] == "its process was ended by SIGKILL (out of memory?)"


def test_several_short_runs_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was left for want of time, and what failed, is done by the next run; what succeeded is kept."""
    code = """
results = [r for r in results if "error" not in r] + [{"part": "bad", "ok": False, "error": "x"}]
missing = [{"part": "late", "why": "the time is used up", "later": True}]
"""
    section = program(code, monkeypatch, tmp_path)
    _, found = outcome(tmp_path, section)
    assert (found["state"], found["reason"]) == ("stopped", "the time is used up")
    program('results += [{"part": "late", "ok": True}]; assert "bad" not in done', monkeypatch, tmp_path)
    code_of_exit, found = outcome(tmp_path, section)
    assert (code_of_exit, found["state"], found["missing"]) == (0, "finished", [])
    assert [r["part"] for r in found["results"]] == ["good", "late"]


def test_results_of_another_machine_are_not_mixed_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome(tmp_path, fake(f"echo '{GOOD}' > $file", monkeypatch, tmp_path))
    with pytest.raises(SystemExit, match=r"holds results of another GPU.*give another --out"):
        run.Run(tmp_path / "out", tmp_path / "work", "cpu", quick=False)
    assert json.loads((tmp_path / "out" / "gpu_check.json").read_text())["quick"] is True


def test_a_section_past_its_time_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    section = fake(f"echo '{GOOD}' > $file; sleep 60", monkeypatch, tmp_path)
    _, found = outcome(tmp_path, section, seconds=0.3)
    assert (found["state"], found["reason"]) == ("stopped", "the time is used up")
    assert found["results"] == [{"part": "a", "ok": True}]


def test_no_section_takes_the_time_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.time, "time", lambda: 1000.0)
    sections = [Section(name, "", "", minutes) for name, minutes in (("a", 2.0), ("b", 6.0), ("c", 2.0))]
    assert run.share(sections[0], sections, 1000.0 + 3600) == 1000.0 + 2 * 720
    assert run.share(sections[1], sections[1:], 1000.0 + 3600) == 1000.0 + 3600, "never more than is left"
    assert run.share(sections[2], sections[2:], 1000.0 + 600) == 1000.0 + 600, "the last one may take all of it"
    assert run.share(sections[0], sections, 1000.0 + 100) == 1000.0 + 60, "none is cut off at once"


def test_a_failed_check_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    section = fake('echo \'{"results": [{"part": "a", "ok": false}], "missing": []}\' > $file', monkeypatch, tmp_path)
    assert outcome(tmp_path, section)[0] == 1


# ---- one section -----------------------------------------------------------------------------------------------------


def test_parts_are_written_down_one_by_one(context: Context) -> None:
    def cannot() -> dict[str, Any]:
        raise ProviderError("provider 'cuda' is not there")

    def broken() -> dict[str, Any]:
        raise ValueError("a defect\nin two lines")

    assert context.run("good", lambda: {"ok": True, "error": 0.5})
    assert read(context)["results"] == [{"part": "good", "ok": True, "error": 0.5}]
    assert not context.run("cannot", cannot)
    assert not context.run("broken", broken)
    assert read(context)["missing"] == [{"part": "cannot", "why": "provider 'cuda' is not there"}]
    assert read(context)["results"][1] == {"part": "broken", "ok": False, "error": "ValueError: a defect in two lines"}


def test_a_part_that_is_done_is_not_done_again(context: Context) -> None:
    context.run("good", lambda: {"value": 1})
    other = Context("cpu", context.file, context.work, context.deadline)
    assert other.run("good", lambda: {"value": 2}) and other.results == [{"part": "good", "value": 1}]
    assert other.run("good", lambda: {"value": 3}, always=True) and other.results == [{"part": "good", "value": 3}]


def test_a_full_memory_is_no_defect(context: Context) -> None:
    """And the parts around it go on."""

    def full() -> dict[str, Any]:
        assert read(context)["running"] == ["outer", "inner"]
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def outer() -> dict[str, Any]:
        assert not context.run("inner", full)
        return {"ok": True}

    assert context.run("outer", outer)
    found = read(context)
    assert [m["part"] for m in found["missing"]] == ["inner"] and "out of memory" in found["missing"][0]["why"]
    assert found["results"] == [{"part": "outer", "ok": True}] and found["running"] == []


def test_a_gpu_that_is_broken_needs_another_process(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr("samples.gpu_check.context.os._exit", left.append)

    def broken() -> dict[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    context.run("outer", lambda: {"ok": context.run("inner", broken)})
    assert left == [1]
    assert read(context)["results"][0] == {
        "part": "inner",
        "ok": False,
        "error": "RuntimeError: CUDA error: an illegal memory access was encountered",
    }


def test_a_section_that_cannot_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: Section, context: Context) -> None:
        raise ProviderError("onnxruntime cannot be imported")

    file = tmp_path / "partial.json"
    monkeypatch.setattr(Section, "__call__", nothing)
    words = ["noise", "--file", str(file), "--work", str(tmp_path), "--deadline", str(time.time() + 60)]
    monkeypatch.setattr(sys, "argv", ["section", *words])
    with pytest.raises(SystemExit) as caught:
        section_module.main()
    assert caught.value.code == 0
    assert json.loads(file.read_text())["missing"] == [{"part": "the rest", "why": "onnxruntime cannot be imported"}]


def test_a_part_that_takes_longer_than_is_left_is_not_begun(tmp_path: Path) -> None:
    context = Context("cpu", tmp_path / "partial.json", tmp_path, time.time() + 30)
    assert not context.run("long", lambda: {"ok": True}, needs=60)
    assert "needs about 60 s" in read(context)["missing"][0]["why"]
    assert context.run("short", lambda: {"ok": True}, needs=10)


def test_every_provider_is_tried_in_every_precision() -> None:
    names = engine_names("cuda", ("fp32", "fp16"))
    assert EngineName("tensorrt-rtx", "fp16") in names and len(names) == 6
    assert engine_names("cpu", ("fp32", "fp16")) == [EngineName("cpu", "fp32")]


# ---- the report ------------------------------------------------------------------------------------------------------


def test_the_table_of_a_network() -> None:
    rows: list[dict[str, Any]] = [
        {
            "part": "edgepure tensorrt fp16, batch 8",
            "batch": 8,
            "ms_per_call": 2.0,
            "share_of_peak": 0.5,
            "spread": 0.01,
        },
        {"part": "pytorch eager fp32, batch 1", "batch": 1, "ms_per_call": 6.0, "share_of_peak": 0.1, "spread": 0.02},
        {
            "part": "edgepure tensorrt fp16, batch 1",
            "batch": 1,
            "ms_per_call": 1.5,
            "share_of_peak": 0.4,
            "loop_cost": 1.02,
            "spread": 0.0,
        },
    ]
    lines = report.speed_table(rows)
    assert lines[0] == "| | batch | ms a call | x eager fp32 | of measured peak | loop cost | spread |"
    assert lines[2] == "| pytorch eager fp32 | 1 | 6.000 | 1.00 | 10 % |  | 2 % |"
    assert lines[3] == "| edgepure tensorrt fp16 | 1 | 1.500 | 4.00 | 40 % | 1.020 | 0 % |"
    assert lines[4] == "| edgepure tensorrt fp16 | 8 | 2.000 |  | 50 % |  | 1 % |"


def test_goals_are_set_beside_what_was_found() -> None:
    def row(part: str, ms: float, **more: float) -> dict[str, Any]:
        return {"part": f"{part}, batch 1", "batch": 1, "ms_per_call": ms, **more}

    results = [
        row("pytorch eager fp32", 9.0),
        row("pytorch compile fp16", 2.0),
        row("edgepure cuda fp16", 2.5, loop_cost=1.5),
        row("edgepure tensorrt fp16", 2.25, loop_cost=1.02),
        {"part": "x, batch 8", "batch": 8, "ms_per_call": 0.1},
    ]
    data = {"machine": {"gpus": ["NVIDIA H200, 141 GiB"]}, "sections": {"ddpmpp": {"results": results}}}
    assert goals.goals(data) == [
        ("ddpmpp", "loop cost with CUDA graphs at most 1.03", "1.020", "reached"),
        ("ddpmpp", "at least 3 x pytorch eager fp32", "4.000", "reached"),
        ("ddpmpp", "at least 1 x pytorch compile fp16", "0.889", "missed"),
        ("ddpmpp", "at most 2 ms a call in fp16 on H200", "2.250", "missed"),
    ]
    data["machine"]["gpus"] = ["another"]  # type: ignore[index]
    assert len(goals.goals(data)) == 3


def test_a_report_of_everything() -> None:
    machine = {
        "date": "2026-03-01",
        "gpus": ["GPU"],
        "driver": "580",
        "cuda_of_driver": "13.0",
        "cpu": "CPU",
        "python": "3.12",
        "jetson": None,
        "power_mode": None,
        "versions": {"torch": "2.11"},
    }
    sections = {
        "parity": {
            "title": "Parity",
            "state": "finished",
            "missing": [{"part": "tensorrt", "why": "not installed"}],
            "results": [{"part": "cuda fp32", "ok": False, "error": "x | y"}],
        },
        "memory": {"title": "Memory", "state": "stopped", "reason": "the time is used up", "results": []},
    }
    text = report.markdown({"machine": machine, "device": "cuda", "quick": False, "sections": sections})
    assert text.startswith("# GPU check: GPU\n")
    assert "1 checks, 1 failed; 0 measurements; 1 sections or parts could not be run." in text
    assert "| cuda fp32 | **FAILED** | x / y |" in text
    assert "| parity | tensorrt | not installed |" in text
    assert "| memory | all of it | the time is used up |" in text
