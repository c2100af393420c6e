"""The pieces of the command line that need no process of their own."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import IMAGE, PRESETS, images

import edgepure
from edgepure.cli import batches, guard, output, plan, presets, progress
from edgepure.cli.batches import run_chunks
from edgepure.cli.options import with_resize
from edgepure.cli.sources import find_sources, output_names
from edgepure.errors import BundleError
from edgepure.methods.presets import Preset, VoteSpec
from edgepure.rows.noise import SeededNoise

# ---- presets ---------------------------------------------------------------------------------------------------------


def test_changes_reach_every_part_of_a_preset() -> None:
    data = Preset.parse(PRESETS["heterogeneous"]).model_dump(mode="json")
    changed = presets.apply_changes(
        data, ["t_l=80", "method.t_s=20", "votes.count=7", "mask.area=0.25", "votes.rule=majority", "clip=true"]
    )
    preset = Preset.parse(changed)
    assert preset.method.model_dump()["t_l"] == 80 and preset.method.model_dump()["clip"] is True
    assert preset.votes.count == 7 and preset.votes.rule == "majority"
    assert preset.mask is not None and (preset.mask.area, preset.mask.threshold) == (0.25, None)
    assert data["votes"]["count"] == 1  # the original is left alone


def test_a_part_that_was_null_can_be_given() -> None:
    data = Preset.parse(PRESETS["uniform"]).model_dump(mode="json")
    found = Preset.parse(presets.apply_changes(data, ["ssni.mu=3", "ssni.tau=1.5", "ssni.probe.probes=4"]))
    assert found.ssni is not None and found.ssni.mu == 3.0 and found.ssni.probe.probes == 4


def test_sequential_votes_and_a_number_of_votes_replace_each_other() -> None:
    def votes(*changes: str) -> VoteSpec:
        data = {**Preset.parse(PRESETS["uniform"]).model_dump(mode="json"), "votes": {"count": 5, "rule": "mean"}}
        return Preset.parse(presets.apply_changes(data, changes)).votes

    found = votes("votes.sequential.max=30", "votes.sequential.alpha=0.01")
    assert (found.count, found.rule) == (30, "majority")
    assert found.sequential is not None and (found.sequential.alpha, found.sequential.max) == (0.01, 30)
    found = votes("votes.sequential.max=30", "votes.count=4")
    assert found.count == 4 and found.sequential is None
    assert votes("votes.sequential.max=30", "votes.sequential.max=40").count == 40
    with raises_code("E-votes-sequential"):
        votes("votes.sequential.max=30", "votes.rule=mean")


@pytest.mark.parametrize("change", ["=5", "t_star", "mask=0.5", "t_star.deep=1"])
def test_malformed_changes_are_refused(change: str) -> None:
    data = Preset.parse(PRESETS["uniform"]).model_dump(mode="json")
    with raises_code("E-set"):
        presets.apply_changes(data, [change])


@pytest.mark.parametrize("text", ["32x32", "3x32", "0x8x8", "3x8x8x8", "axbxc", "3x-8x8", ""])
def test_malformed_image_sizes_are_refused(text: str) -> None:
    with raises_code("E-plan-image"):
        plan.parse_image_size(text)
    assert plan.parse_image_size("1X16x20") == (1, 16, 20)


# ---- images ----------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_outputs_are_named_after_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", images(2))
    touch(tmp_path / "folder", "b.jpg", "a.png", "notes.txt", ".hidden.png")
    sources = find_sources([*touch(tmp_path, "z.webp"), tmp_path / "many.npy", tmp_path / "folder"])
    assert output_names(sources) == ["z.png", "many_00000.png", "many_00001.png", "a.png", "b.png"]


def test_files_that_differ_in_their_suffix_keep_it(tmp_path: Path) -> None:
    sources = find_sources(touch(tmp_path, "a.png", "a.jpg", "b.png"))
    assert output_names(sources) == ["a.png.png", "a.jpg.png", "b.png"]


def test_two_inputs_never_share_an_output(tmp_path: Path) -> None:
    sources = find_sources([*touch(tmp_path / "one", "a.png"), *touch(tmp_path / "two", "a.png")])
    with raises_code("E-output-twice"):
        output_names(sources)


def test_an_archive_of_several_arrays_must_say_which(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", clean=images(1), attacked=images(1))
    (source,) = find_sources([tmp_path / "two.npz"])
    assert "clean, attacked" in str(source.item) and "FILE.npz:NAME" in str(source.item)
    (named,) = find_sources([Path(f"{tmp_path / 'two.npz'}:attacked")])
    np.testing.assert_array_equal(named.item, images(1)[0])
    assert named.path == tmp_path / "two.npz" and named.name.endswith("two.npz:attacked[0]")
    (wrong,) = find_sources([Path(f"{tmp_path / 'two.npz'}:nothing")])
    assert "`nothing`" in str(wrong.item)


def test_a_damaged_archive_is_a_bad_image(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=images(64))
    data = bytearray(path.read_bytes())
    data[100:140] = bytes(40)
    path.write_bytes(data)
    (source,) = find_sources([path])
    assert "cannot be read as an array" in str(source.item)


def test_chunks_do_not_change_the_results(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = images(7)
    clean[2, 0, 0, 0] = np.nan
    np.save(tmp_path / "many.npy", clean)
    sources = find_sources([tmp_path / "many.npy"])
    with edgepure.load(tiny_bundle, threads=1, slots=2) as purifier:

        def purified() -> tuple[dict[int, Any], list[str], list[float]]:
            found: dict[int, Any] = {}
            shares: list[float] = []
            failures = run_chunks(
                purifier, purifier.own_head(), purifier.preset("adaptive"), sources, noise=SeededNoise(4), resize=False,
                on_result=lambda position, result: found.update({position: (result.name, result.image)}),
                on_share=shares.append,
            )  # fmt: skip
            return found, [failure.name for failure in failures], shares

        whole, failed, shares = purified()
        monkeypatch.setattr(batches, "MOST_IMAGES", 2)
        assert batches.chunk_size(IMAGE.shape, 2) == 2
        pieces, failed_too, shares_too = purified()
        again = purifier.run(clean[3:4], "adaptive", noise=SeededNoise(4))[0].image
    assert failed == failed_too == [f"{tmp_path / 'many.npy'}[2]"]
    assert sorted(whole) == sorted(pieces) == [0, 1, 3, 4, 5, 6]
    for position, (name, image) in whole.items():
        assert pieces[position][0] == name == f"{tmp_path / 'many.npy'}[{position}]"
        np.testing.assert_array_equal(pieces[position][1], image)
    assert not np.array_equal(again, whole[3][1])  # image 0 of the stream is not image 3
    for reported in (shares, shares_too):
        assert all(0.0 < share <= 1.0 for share in reported) and reported[-1] > 0.9


# ---- words -----------------------------------------------------------------------------------------------------------


def test_errors_become_a_sentence_and_a_code() -> None:
    assert guard.describe(BundleError("the bundle is gone")) == guard.Shown("E-bundle", "the bundle is gone", 3)
    assert guard.describe(KeyboardInterrupt()).exit_code == 130
    system = guard.describe(OSError(28, "No space left on device", "out/a.png"))
    assert system.exit_code == 1 and system.code == "E-disk-full" and "out/a.png" in system.message
    defect = guard.describe(ZeroDivisionError("division by zero"))
    assert (defect.exit_code, defect.code) == (1, "E-defect")
    assert "ZeroDivisionError: division by zero" in defect.message and "--debug" in defect.message
    assert guard.describe(MemoryError()).code == "E-memory"


def test_json_has_no_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json({"a": float("inf"), "b": [float("nan"), 1.5], 3: "ü"})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "3": "ü"}


def test_tables_are_not_cut_off_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    name = "/a/long/path/" + "x" * 300
    output.table(("image", "label"), [(name, "[red]seven[/red]")])
    text = capsys.readouterr().out
    assert name in text.replace("\n", "").replace(" ", "")
    assert "[red]seven[/red]" in text  # a name is a name, whatever it looks like


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3725, "1 h 2 min")])
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (1500, "1.5 kB"), (3_000_000_000, "3.00 GB")])
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


class Clock:
    """A clock that tests move."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_in_a_pipe_estimates_from_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stderr = Clock(), io.StringIO()
    monkeypatch.setattr(progress, "perf_counter", clock)
    monkeypatch.setattr(sys, "stderr", stderr)
    bar = progress.Progress("purifying")
    clock.now += 30.0  # reading the bundle says nothing of the pace
    bar.update(0.1)
    clock.now += 10.0
    bar.update(0.3)
    clock.now += 1.0
    bar.update(0.4)  # too soon for another line
    assert stderr.getvalue().splitlines() == ["purifying: 10 %", "purifying: 30 %, about 35 s left"]


def test_what_takes_less_than_a_second_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress("thinking") as bar:
        bar.update(0.5)
    assert capsys.readouterr().err == ""


def test_resize_alone_means_squash() -> None:
    assert with_resize([]) == []
    assert with_resize(["--resize"]) == ["--resize=squash"]
    assert with_resize(["a.png", "--resize", "--json"]) == ["a.png", "--resize=squash", "--json"]
    assert with_resize(["--resize", "crop", "--resize=pad"]) == ["--resize", "crop", "--resize=pad"]
