"""Verbs come from packages, and are loaded when they are asked for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import foreign_package
import pytest
from cli_process import environment, run

from edgepure.cli.app import app
from edgepure.cli.listing import GROUP, ORDER, first_paragraph, help_page
from edgepure.errors import ConfigError
from edgepure.machine.packages import extensions, needs

HELLO = '''
    from typing import Annotated

    import typer

    from edgepure.cli.options import JsonOption
    from edgepure.errors import ImageError


    def greet(
        name: Annotated[str, typer.Argument(help="Whom.")],
        as_json: JsonOption = False,
    ) -> None:
        """Say hello to somebody.

        Examples:

        \\b
          edgepure greet Ada
        """
        if name == "Nobody":
            raise ImageError("nobody is there; name somebody", code="E-hello-nobody")
        typer.echo(f"hello {name}")
'''


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with a package that brings the verb ``greet``."""
    return foreign_package.install(tmp_path_factory.mktemp("foreign"), "hello", HELLO, GROUP, greet="hello:greet")


def test_a_verb_of_another_package(hello: dict[str, str]) -> None:
    listed = run("--help", env=hello).stdout
    assert re.search(r"^  greet +Say hello to somebody\.$", listed, re.MULTILINE) and "  doctor " in listed
    assert run("greet", "Ada", env=hello).stdout == "hello Ada\n"
    assert "edgepure greet Ada" in run("greet", "--help", env=hello).stdout
    run("greet", "Nobody", env=hello).fails(4, "name somebody")
    refused = run("greet", "Nobody", "--json", env=hello)
    assert refused.json["error"]["code"] == "E-hello-nobody"
    assert run("greet", "--json", env=hello).json["error"]["code"] == "E-usage"


def test_a_verb_that_cannot_be_loaded_is_named_with_its_package(tmp_path: Path) -> None:
    env = foreign_package.install(tmp_path, "torn", "1 / 0", GROUP, tear="torn:tear")
    assert re.search(r"^  tear +From the package torn\.$", run("--help", env=env).stdout, re.MULTILINE)
    run("tear", env=env).fails(2, "`edgepure tear`", "package torn", "division by zero")
    assert run("tear", "--json", env=env).json["error"]["code"] == "E-cli-broken-verb"
    assert run("plan", "--method", "uniform", env=env).code == 0  # the others do not mind


@pytest.mark.parametrize("columns", [30, 80, 97, 200])
def test_the_help_says_what_typer_would_say(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    app(["--help"], prog_name="edgepure", standalone_mode=False)
    assert help_page() == capsys.readouterr().out


def test_help_imports_no_verb_and_a_verb_no_other() -> None:
    code = (
        "import sys, json\nfrom edgepure.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    verbs = {point.module for point in extensions(GROUP).values()}
    for arguments, wanted in ((["--help"], set()), (["plan", "--help"], {"edgepure.cli.plan"})):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment(), capture_output=True, text=True, check=True
        )
        loaded = set(json.loads(done.stderr))
        assert loaded & verbs == wanted
        assert not loaded & {"numpy", "torch", "edgepure_export", "edgepure_calibration"}
        assert "typer" not in loaded or arguments != ["--help"]  # most of the time would be its own


def test_every_verb_has_its_place_and_a_line_in_the_help() -> None:
    found = extensions(GROUP)
    assert set(ORDER) <= set(found)
    for point in found.values():
        words = first_paragraph(point)
        assert words.endswith(".") and not words.startswith("From the package")
        assert (point.load().__doc__ or "").split("\n\n")[0].split() == words.split()


def test_a_verb_without_a_docstring_is_named_by_its_package() -> None:
    assert first_paragraph(EntryPoint("x", "no_such_module:x", GROUP)) == ""


def test_what_an_extra_brings_is_missed_in_one_sentence() -> None:
    with pytest.raises(ConfigError) as raised, needs("dreaming needs sheep", "electric"):
        import no_such_sheep  # type: ignore[import-not-found]  # noqa: F401
    assert raised.value.code == "E-missing-package"
    assert str(raised.value) == (
        "dreaming needs sheep, and no_such_sheep cannot be imported; install it with `pip install edgepure[electric]`"
    )


def test_completion_of_the_shell(tmp_path: Path) -> None:
    asked = {**environment(), "_EDGEPURE_COMPLETE": "complete_bash", "COMP_WORDS": "edgepure cl", "COMP_CWORD": "1"}
    assert run(env=asked).stdout.split() == ["classify"]
    asked |= {"COMP_WORDS": "edgepure classify --prec", "COMP_CWORD": "2"}
    assert run(env=asked).stdout.split() == ["--precision"]
