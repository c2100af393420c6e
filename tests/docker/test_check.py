"""docker/check.py: its commands, its judgement, and whole runs with a builder that only plays its part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docker" / "check.py"


def _load() -> Any:
    spec = util.spec_from_file_location("docker_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


check = _load()

#: Plays docker, podman or buildah: writes down how it was called, answers for the image, fails where FAIL says.
BUILDER = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
words = " ".join(sys.argv[1:])
if os.environ.get("FAIL", "nothing") in words:
    print("something went wrong", file=sys.stderr)
    sys.exit(7)
if sys.argv[1] == "from":
    print("container-1")
elif "du -sx" in words:
    print(412)
elif "doctor" in words:
    print(os.environ["DOCTOR"])
elif "nvidia.find()" in words:
    sys.exit(0 if '"gpus": []' not in os.environ["DOCTOR"] else 1)
"""


def doctor(gpus: list[str], fault: str = "", ok: bool = True) -> str:
    return json.dumps({"ok": ok, "driver": {"gpus": gpus, "fault": fault}})


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An otherwise empty PATH, with room for builders."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("DOCTOR", doctor([], "no NVIDIA driver"))
    monkeypatch.delenv("FAIL", raising=False)
    monkeypatch.delenv("BUILDAH_ISOLATION", raising=False)
    return tmp_path


def install(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(BUILDER.format(python=sys.executable))
        (folder / name).chmod(0o755)


def calls(folder: Path) -> list[list[str]]:
    said = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return [words for words in said if words != ["info"]]


def test_podman_and_buildah_are_told_to_keep_the_health_check() -> None:
    assert "--format=docker" not in check.build_command("docker", "cpu", [])
    for name in ("podman", "buildah"):
        words = check.build_command(name, "cpu", ["A=1", "B=2"])
        assert words[:5] == [name, "build", "--format=docker", "--build-arg=A=1", "--build-arg=B=2"]


@pytest.mark.parametrize("image", check.IMAGES)
def test_the_health_check_is_read_from_every_dockerfile(image: str) -> None:
    command = check.health_command((ROOT / "docker" / f"{image}.Dockerfile").read_text())
    assert command[0] in ("edgepure", "python")
    assert ("doctor" in command) == (image in check.DEFAULT)


def test_a_dockerfile_without_a_health_check_is_a_failure() -> None:
    with pytest.raises(check.ImageError, match="no HEALTHCHECK"):
        check.health_command('FROM x\nCMD ["doctor"]\n')


def test_doctor_has_to_work_and_to_say_why_there_is_no_gpu() -> None:
    assert check.driver_says(doctor(["Orin"]))
    assert not check.driver_says(doctor([], "no NVIDIA driver"))
    for said, error in (
        (doctor([]), "does not say why"),
        (doctor([], "no NVIDIA driver", ok=False), "no engine works"),
        ("Traceback", "cannot be read"),
        ("{}", "cannot be read"),
        ("[]", "cannot be read"),
    ):
        with pytest.raises(check.ImageError, match=error):
            check.driver_says(said)


def test_a_whole_run_with_docker(builder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    install(builder, *check.BUILDERS)
    assert check.main(["cpu", "tensorrt", "--run-arg=--gpus=all"]) == 0
    table = capfd.readouterr().out
    assert [line.split()[1] for line in table.splitlines()[2:]] == ["cpu", "tensorrt"]
    assert table.count("| passed |") == 2 and table.count(" 412 ") == 2
    for words in calls(builder):
        assert words[0] in ("build", "run"), "docker is the first choice"
        if words[0] == "run":
            assert {"--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--gpus=all"} <= set(words)
            assert not any(word.startswith("--user") for word in words), "the image's own user"


def test_a_whole_run_with_buildah_removes_its_container(builder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(builder, "buildah")
    assert check.main(["cpu"]) == 0
    assert [words[0] for words in calls(builder)] == ["build", "from", *["run"] * 5, "rm"]
    assert all("container-1" in words for words in calls(builder)[2:])
    monkeypatch.setenv("FAIL", "doctor")
    assert check.main(["cpu"]) == 1
    assert calls(builder)[-1] == ["rm", "container-1"]


def test_images_that_are_there_are_only_used(builder: Path) -> None:
    install(builder, "docker")
    assert check.main(["cpu", "--no-build"]) == 0
    assert {words[0] for words in calls(builder)} == {"run"}


def test_buildahs_chroot_isolation_gets_its_network_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    assert check.run_command("buildah", "container-1", ["id"], [])[:3] == ["unshare", "--net", "buildah"]
    assert check.run_command("docker", "edgepure:cpu", ["id"], [])[0] == "docker"


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("build -f", "build: exit code 7"),
        ("doctor --json", "doctor: exit code 7 instead of 0: something went wrong"),
        ("demo", "work: exit code 7"),
        ("command -v", "tools: exit code 7"),
    ],
)
def test_what_fails_is_named_and_the_next_image_is_still_built(
    builder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fail: str, said: str
) -> None:
    install(builder, "docker")
    monkeypatch.setenv("FAIL", fail)
    assert check.main(["cpu", "jetpack7"]) == 1
    rows = capfd.readouterr().out.splitlines()[2:]
    assert len(rows) == 2 and all(said in row for row in rows)


def test_the_health_check_of_a_gpu_image_has_to_fail_without_a_gpu(
    builder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(builder, "docker")
    monkeypatch.setenv("DOCTOR", doctor(["H200"]))
    assert check.main(["tensorrt"]) == 0, "with a GPU it has to pass"
    (builder / "docker").write_text((builder / "docker").read_text().replace("else 1)", "else 0)"))
    monkeypatch.setenv("DOCTOR", doctor([], "no NVIDIA driver"))
    assert check.main(["tensorrt"]) == 1
    assert "health: exit code 0 instead of 1" in capfd.readouterr().out


def test_without_a_builder_it_says_so(builder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 2
    assert "`info` of docker, podman, buildah does not answer" in capfd.readouterr().err
    install(builder, "podman")
    assert check.main(["--builder", "docker"]) == 2
    assert "`info` of docker does not answer" in capfd.readouterr().err


def test_a_client_without_its_engine_is_passed_over(builder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    install(builder, "docker", "podman")
    (builder / "docker").write_text(f"#!{sys.executable}\nimport sys; sys.exit(1)\n")
    assert check.main(["cpu"]) == 0
    assert "passed" in capfd.readouterr().out and len(calls(builder)) == 6


def test_it_runs_as_a_script_without_edgepure() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), "nonsense"], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 2
    assert f"no such image: nonsense; there are {', '.join(check.IMAGES)}" in done.stderr
