"""What can be known of the container images without building them. `make lint` runs hadolint, `make images` builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which the model libraries bring along")

ROOT = Path(__file__).resolve().parents[2]
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
NAMES = [path.name.partition(".")[0] for path in IMAGES]


def instructions(path: Path) -> list[str]:
    """The lines of a Dockerfile without comments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", IMAGES, ids=NAMES)
def test_it_ends_as_an_ordinary_user_with_a_health_check(path: Path) -> None:
    last = instructions(path)
    last = last[max(i for i, line in enumerate(last) if line.startswith("FROM ")) :]
    assert [line for line in last if line.startswith("USER ")] == ["USER 10001:10001"]
    assert sum(line.startswith("HEALTHCHECK ") for line in last) == 1
    assert not [line for line in last if re.search(r"\bpip3? install|apt-get", line)], "tools stay in earlier stages"


@pytest.mark.parametrize("path", IMAGES, ids=NAMES)
def test_the_health_check_asks_what_there_is(path: Path) -> None:
    """With or without a GPU it answers, and does not fall over a name that has moved."""
    (line,) = [line for line in instructions(path) if line.startswith("HEALTHCHECK ")]
    words = json.loads(line[line.index("CMD ") + 4 :])
    if words[0] == "edgepure":
        words = ["python", "-m", *words]
    assert words[0] == "python"
    found = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1) and "Traceback" not in found.stderr, found.stderr


@pytest.mark.parametrize("path", IMAGES, ids=NAMES)
def test_versions_are_pinned(path: Path) -> None:
    lines = instructions(path)
    defaults = dict(
        line.removeprefix("ARG ").split("=", 1) for line in lines if line.startswith("ARG ") and "=" in line
    )
    stages = {line.split(" AS ")[1] for line in lines if line.startswith("FROM ") and " AS " in line}
    for line in (line for line in lines if line.startswith("FROM ")):
        image = re.sub(r"\$\{(\w+)\}", lambda found: defaults.get(found[1], found[0]), line.split()[1])
        assert image in stages or re.search(r":[\w.-]*\d[\w.-]*\d", image), f"{image} has no exact tag"
    for line in lines:
        for command in re.findall(r"pip install (.*?)(?: && |$)", line):
            wanted = [word for word in command.split() if re.match(r"""["']?[a-z]""", word)]
            free = [word for word in wanted if "==" not in word and "constraints" not in word and "TORCH" not in word]
            assert not free or "--constraint" in command, f"{free} have no version"


@pytest.mark.parametrize("path", IMAGES, ids=NAMES)
def test_a_change_of_the_sources_keeps_the_layer_of_the_packages(path: Path) -> None:
    lines = instructions(path)
    (packages,) = [i for i, line in enumerate(lines) if "-r pyproject.toml" in line]
    copied = [line for line in lines[:packages] if line.startswith("COPY ") and "--from" not in line]
    assert copied == ["COPY constraints.txt pyproject.toml ./"]


@pytest.mark.parametrize("path", IMAGES, ids=NAMES)
def test_no_frontend_is_fetched(path: Path) -> None:
    assert "syntax=" not in path.read_text(encoding="utf-8"), "a moving tag, from a registry, for nothing that is used"


@pytest.mark.parametrize("path", IMAGES, ids=NAMES)
def test_what_is_copied_is_in_the_context(path: Path) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in instructions(path):
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert source in allowed and (ROOT / source).exists(), source


def test_compose_has_every_image_and_hardens_it() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    assert sorted(services) == NAMES
    for name, service in services.items():
        assert service["build"]["dockerfile"] == f"docker/{name}.Dockerfile"
        assert service["image"] == f"edgepure:{name}"
        assert service["read_only"] and service["network_mode"] == "none" and service["cap_drop"] == ["ALL"]
        assert (service.get("runtime") == "nvidia") == name.startswith("jetpack")


def test_the_readme_lists_every_image() -> None:
    text = (ROOT / "docker" / "README.md").read_text(encoding="utf-8")
    for path in IMAGES:
        assert f"| `{path.name}` |" in text
