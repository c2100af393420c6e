"""Folders are made and replaced whole or not at all, and what a killed process cut short is healed by the next one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from codes import raises_code

from edgepure.errors import EdgepureError
from edgepure.files.atomic import write_text
from edgepure.files.folders import atomic_directory, heal

HEX = "0123456789ab"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def read(target: Path) -> str:
    """What a whole folder of `build` says; an error for half of one."""
    text = (target / "sub" / "file").read_text()
    assert json.loads((target / "bundle.json").read_text()) == text
    return text


def build(target: Path, text: str = "new", *, overwrite: bool = False, error: BaseException | None = None) -> None:
    with atomic_directory(target, overwrite) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(text)
        (folder / "bundle.json").write_text(json.dumps(text))
        if error is not None:
            raise error


def test_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "bundle"
    with atomic_directory(target) as folder:
        assert not target.exists()
        assert folder.parent == target.parent
        (folder / "file").touch()
    assert names(target) == ["file"]
    assert names(target.parent) == ["bundle"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.ENOSPC, "full")])
def test_failed_build_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(EdgepureError if isinstance(error, OSError) else type(error)):
        build(tmp_path / "deep" / "bundle", error=error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("nth", [1, 2])
def test_failed_rename_keeps_the_old_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, nth: int
) -> None:
    target = tmp_path / "bundle"
    build(target, "old")
    real, calls = os.rename, []

    def rename(source: Any, destination: Any) -> None:
        calls.append(source)
        if len(calls) == nth:
            raise error
        real(source, destination)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(EdgepureError if isinstance(error, OSError) else KeyboardInterrupt):
        build(target, overwrite=True)
    assert read(target) == "old"
    assert names(tmp_path) == ["bundle"]


def test_existing_directory_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    build(target, "old")
    with raises_code("E-output-exists"):
        build(target)
    assert (target / "sub" / "file").read_text() == "old"
    (target / "engines").mkdir()
    build(target, overwrite=True)
    assert names(target) == ["bundle.json", "sub"]
    assert (target / "sub" / "file").read_text() == "new"
    assert names(tmp_path) == ["bundle"]


def test_only_a_bundle_is_ever_overwritten(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with raises_code("E-output-foreign"):
        build(home, overwrite=True)
    with raises_code("E-output-file"):
        build(home / "thesis.tex", overwrite=True)
    assert (home / "thesis.tex").read_text() == "years of work"
    assert names(home) == ["thesis.tex"]


def test_empty_directory_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty")
    assert names(tmp_path / "empty") == ["bundle.json", "sub"]


def test_directory_that_appears_during_the_build_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "bundle"

    def race() -> None:
        with atomic_directory(target) as folder:
            (folder / "file").touch()
            target.mkdir()
            (target / "other").touch()

    with raises_code("E-output-exists"):
        race()
    assert names(target) == ["other"]
    assert names(tmp_path) == ["bundle"]


def test_parent_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with raises_code("E-output-path"):
        build(tmp_path / "file" / "bundle")
    assert names(tmp_path) == ["file"]


def test_what_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "folder", marker="file") as folder:
        write_text(folder / "file", "old")
    (tmp_path / "folder").chmod(0o700)
    with atomic_directory(tmp_path / "folder", overwrite=True, marker="file") as folder:
        write_text(folder / "file", "new")
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
    assert (tmp_path / "folder" / "file").read_text() == "new"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EXDEV, "E-output-layer"), (errno.EBUSY, "E-output-mounted")],
)
def test_folders_that_cannot_be_renamed_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    with atomic_directory(tmp_path / "folder", marker="file") as folder:
        write_text(folder / "file", "old")

    def refused(source: Any, target: Any) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "rename", refused)
    with (
        raises_code(code),
        atomic_directory(tmp_path / "folder", overwrite=True, marker="file") as folder,
    ):
        write_text(folder / "file", "new")
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["folder"]


def test_what_is_hidden_is_taken_over_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with atomic_directory(tmp_path / "folder", marker="file") as folder:
        write_text(folder / "file", "old")
    (tmp_path / "folder" / ".git").mkdir()
    (tmp_path / "folder" / ".git" / "HEAD").write_text("main")

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    with atomic_directory(tmp_path / "folder", overwrite=True, marker="file") as folder:
        write_text(folder / "file", "new")
    assert (tmp_path / "folder" / ".git" / "HEAD").read_text() == "main"


# ---- killed ----------------------------------------------------------------------------------------------------------

CALLS = [(os, "rename"), (os, "rmdir"), (os, "unlink"), (os, "mkdir"), (os, "fsync"), (os, "link"), (shutil, "rmtree")]


class Killed(BaseException):
    """The process is gone: nothing happens of what it had in mind for such a case."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> bool:
    """Run ``act``, in which all calls that change the disk fail from the given one on. False: it needs fewer calls."""
    count = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for module, name in CALLS:
            patch.setattr(module, name, dying(getattr(module, name)))
        try:
            act()
        except Killed:
            return True
    return False


def age(folder: Path) -> None:
    """As if what lies there had lain there for weeks."""
    for path in folder.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)


@pytest.mark.parametrize("next_one", ["reader", "writer"])
def test_killed_at_any_step_the_old_or_the_new_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_one: str
) -> None:
    step, seen = 0, []
    while True:
        place = tmp_path / f"{next_one}{step}"
        target = place / "bundle"
        build(target, "old")
        (target / ".git").mkdir()
        (target / ".git" / "HEAD").write_text("main")
        killed = killed_at(step, monkeypatch, partial(build, target, overwrite=True))
        gone = not target.exists()
        if next_one == "reader":
            heal(target)
        seen.append((gone, read(target) if target.exists() else "healed by the writer"))
        assert gone or seen[-1][1] in ("old", "new")
        age(place)
        build(target, "newer", overwrite=True)
        assert (read(target), names(place)) == ("newer", ["bundle"])
        assert (target / ".git" / "HEAD").read_text() == "main"
        if not killed:
            break
        step += 1
    assert [gone for gone, _ in seen].count(True) == 1, "the moment between the two renames"
    if next_one == "reader":
        texts = [text for _, text in seen]
        assert texts == sorted(texts, reverse=True), "first the old one, from some step on the new one"
        assert (True, "new") in seen and texts[0] == "old" and texts[-1] == "new"


def test_killed_while_a_folder_is_made_for_the_first_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, killed = 0, True
    while killed:
        target = tmp_path / str(step) / "bundle"
        target.parent.mkdir()
        killed = killed_at(step, monkeypatch, partial(build, target))
        heal(target)
        assert not target.exists() or read(target) == "new"  # never half of one
        age(target.parent)
        build(target, "newer", overwrite=True)
        assert (read(target), names(target.parent)) == ("newer", ["bundle"])
        step += 1
    assert step > 5


def cut_short(target: Path, *, new: bool = True) -> None:
    """As a crash between the two renames leaves it."""
    kinds = {"old": "old", "new": "tmp"} if new else {"old": "old"}
    for text in kinds:
        build(target.with_name(text), text)
    for text, kind in kinds.items():
        target.with_name(text).rename(target.with_name(f".{target.name}.{HEX}.{kind}"))


def test_healing_is_going_on_where_the_new_one_is_there(tmp_path: Path) -> None:
    cut_short(tmp_path / "bundle")
    heal(tmp_path / "bundle")
    assert (read(tmp_path / "bundle"), names(tmp_path)) == ("new", ["bundle"])
    cut_short(tmp_path / "second", new=False)
    heal(tmp_path / "second")
    assert (read(tmp_path / "second"), names(tmp_path)) == ("old", ["bundle", "second"])


def test_healing_touches_only_what_is_ours(tmp_path: Path) -> None:
    others = [".bundle.tmp", ".bundle.more.0123456789ab.old", f".bundles.{HEX}.old", ".bundle.0123.old", "x.old"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / f".bundle.{HEX}.old").touch()  # no folder
    heal(tmp_path / "bundle")
    heal(tmp_path / "nowhere" / "bundle")
    assert names(tmp_path) == sorted([*others, f".bundle.{HEX}.old"])
    build(tmp_path / "bundle", "there")
    (tmp_path / f".bundle.{HEX}.tmp").mkdir()  # unfinished, and perhaps somebody is at it
    build(tmp_path / "bundle", "newer", overwrite=True)
    assert (tmp_path / f".bundle.{HEX}.tmp").is_dir()


def test_a_name_that_leaves_no_room_for_ours(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 120)
    build(target, "old")
    build(target, "new", overwrite=True)
    assert (read(target), names(tmp_path)) == ("new", [target.name])
    with raises_code("E-output-write"):
        build(tmp_path / ("x" * 300))


def test_without_permission_nothing_is_healed_and_nothing_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(tmp_path / "bundle")
    before = names(tmp_path)

    def refused(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(os, "rename", refused)
    heal(tmp_path / "bundle")
    assert names(tmp_path) == before


def test_a_reader_that_heals_while_the_writer_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, real = tmp_path / "bundle", os.rename
    build(target, "old")

    def rename(source: Any, destination: Any) -> None:
        real(source, destination)
        if threading.current_thread() is threading.main_thread() and str(destination).endswith(".old"):
            reader = threading.Thread(target=heal, args=[target])
            reader.start()
            reader.join()

    monkeypatch.setattr(os, "rename", rename)
    build(target, overwrite=True)
    assert (read(target), names(tmp_path)) == ("new", ["bundle"])


def test_two_writers_and_readers_at_once(tmp_path: Path) -> None:
    """Whoever comes first: at every moment a reader finds one whole folder, and nothing stays behind."""
    target, found, failed = tmp_path / "bundle", set(), []
    build(target, "0")

    def write(text: str) -> None:
        for _ in range(15):
            try:
                build(target, text, overwrite=True)
            except EdgepureError as error:
                failed.append(error)  # the other one was faster: nothing was written

    writers = [threading.Thread(target=write, args=[text]) for text in "12"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        heal(target)
        try:
            found.add((target / "bundle.json").read_text())
        except FileNotFoundError:
            continue
    heal(target)
    assert found <= {'"0"', '"1"', '"2"'} and found
    assert read(target) in "12" and names(tmp_path) == ["bundle"]
    assert len(failed) < 30
