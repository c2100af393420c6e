"""docs/cli.md: the table of verbs, and under each verb what its ``--help`` says."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint

from edgepure.cli.listing import GROUP, ORDER, first_paragraph
from edgepure.cli.verbs import load
from edgepure.machine.packages import extensions

from .page import Page, table

#: Columns of the help texts on the page.
WIDTH = 100


def own_verbs() -> dict[str, EntryPoint]:
    """The verbs of this distribution, in the order of the help."""
    found = extensions(GROUP)
    return {name: found[name] for name in ORDER if name in found}


def help_of(name: str) -> str:
    """What ``edgepure NAME --help`` prints."""
    os.environ["COLUMNS"] = str(WIDTH)
    command = load(own_verbs()[name])
    with command.make_context(f"edgepure {name}", [], resilient_parsing=True) as context:
        return str(command.get_help(context)).strip("\n") + "\n"


def fill(page: Page) -> None:
    """Put the table and the help texts in."""
    rows = [(f"[`edgepure {name}`](#{name})", first_paragraph(point)) for name, point in own_verbs().items()]
    page.fill("verbs", lambda name, old: table(("command", "what it does"), rows))
    page.fill("help", lambda name, old: f"```text\n{help_of(name)}```")
