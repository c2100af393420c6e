"""What ``edgepure --help`` says: the verbs of the installed packages and the first sentences of their files.

Names come from the packages' metadata and sentences from the text of the files, so that no verb is imported, nor typer:
the list is there at once, on a busy board too.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError
from ..machine.packages import extensions

GROUP = "edgepure.commands"
HELP = (
    "Diffusion purification of images on edge devices. A bundle is a folder that `edgepure export` wrote; "
    "`edgepure demo` brings one along."
)
VERSION_HELP = "Show the version."
EPILOG = (
    "Exit codes: 0 done, 1 system error or defect, 2 wrong usage or parameters, 3 bundle, 4 images, 5 engine, "
    "6 verification, 7 export, 130 interrupted."
)
#: The widest that help texts are, in columns.
WIDEST = 110
#: As one meets them at work; those of other packages follow in the order of their names.
ORDER = (
    "demo", "export", "calibrate", "quantize", "tune", "build", "verify", "evaluate", "evaluate-task",
    "compare", "certify", "purify", "classify", "predict", "plan", "presets", "inspect", "bench", "doctor",
    "serve", "triton",
)  # fmt: skip


def points() -> list[EntryPoint]:
    """The verbs of all installed packages, in the order of the list.

    Raises:
        ConfigError: edgepure itself is not installed.
    """
    found = extensions(GROUP)
    own = [name for name in ORDER if name in found]
    if not own:
        raise ConfigError(
            "edgepure lies on Python's path and is not installed, so it has no commands; run `pip install .` in its "
            "folder, or import edgepure in Python",
            code="E-cli-not-installed",
        )
    return [found[name] for name in (*own, *sorted(set(found) - set(own)))]


def help_page() -> str:
    """The list, laid out as typer lays it out: it would say the same, later."""
    width = max(min(shutil.get_terminal_size().columns, WIDEST) - 2, 50)
    options = [
        ("--version", VERSION_HELP),
        ("--install-completion", "Install completion for the current shell."),
        ("--show-completion", "Show completion for the current shell, to copy it or customize the installation."),
        ("-h, --help", "Show this message and exit."),
    ]
    found = points()
    room = width - 6 - max(len(point.name) for point in found)
    verbs = [(point.name, _shortened(first_paragraph(point), room)) for point in found]
    lines = ["Usage: edgepure [OPTIONS] COMMAND [ARGS]...", "", *_indented(HELP, width), ""]
    lines += ["Options:", *_rows(options, width), "", "Commands:", *_rows(verbs, width), "", *_indented(EPILOG, width)]
    return "\n".join(lines) + "\n"


def _indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")


def _rows(pairs: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    pairs = list(pairs)
    column = min(max(len(name) for name, _ in pairs), 30) + 2
    for name, words in pairs:
        first, *more = textwrap.wrap(words, max(width - column - 2, 10)) or [""]
        if len(name) > column - 2 and first:
            yield f"  {name}"
            name = ""
        yield f"  {name:<{column}}{first}".rstrip()
        yield from (" " * (column + 2) + line for line in more)


def _shortened(words: str, room: int) -> str:
    """The first sentence, cut at a word where it is longer."""
    sentence = re.split(r"(?<=\.)\s", words, maxsplit=1)[0]
    return textwrap.shorten(sentence, room, placeholder="...", break_on_hyphens=False)


def first_paragraph(point: EntryPoint) -> str:
    """The beginning of a verb's docstring, read from its file; what package it is of where that is not possible."""
    top, *inner = point.module.split(".")
    spec = find_spec(top)
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    files = [Path(folder, *inner).with_suffix(".py") for folder in folders]
    if spec is not None and spec.origin is not None and not inner:
        files.append(Path(spec.origin))
    for file in filter(Path.is_file, files):
        function = rf'^def {re.escape(point.attr)}\(.*?^    """(.*?)(?:\n\n|""")'
        found = re.search(function, file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        if found:
            return " ".join(found[1].split())
    return f"From the package {point.dist.name}." if point.dist is not None else ""
