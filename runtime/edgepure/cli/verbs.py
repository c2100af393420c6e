"""The verbs of the command line: who brings which, loaded when it is asked for.

A verb is a function with typer's annotations, declared under the entry-point group ``edgepure.commands`` of the package
that it lives in.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import ConfigError, words_of
from .guard import fail, guard
from .listing import WIDEST, first_paragraph, points
from .options import with_resize

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": WIDEST}


class Verbs(TyperGroup):
    """The group of all verbs of all installed packages."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for point in points():
            self.add_command(_Unloaded(point))


class _Unloaded(TyperCommand):
    """A verb of which only the name is known. Its module is imported when the verb runs or shows its own help."""

    def __init__(self, point: EntryPoint) -> None:
        super().__init__(name=point.name)
        self._point = point

    def get_short_help_str(self, limit: int = 45) -> str:
        self.help = self.help or first_paragraph(self._point)
        return super().get_short_help_str(limit)

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return load(self._point, as_json="--json" in args).make_context(info_name, args, parent, **extra)


class _Loaded(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse empty values, which are variables that are not set: an empty path would be the current folder."""
        for number, text in enumerate(args, start=1):
            option, sign, value = text.partition("=")
            if not text or (option.startswith("--") and sign and not value):
                empty = ConfigError(
                    f"argument {number} of `edgepure {ctx.info_name}` is empty, perhaps a variable that is not set; "
                    "give a value or leave it out",
                    code="E-cli-empty-argument",
                )
                fail(empty, as_json="--json" in args)
        return super().parse_args(ctx, with_resize(args))


def load(point: EntryPoint, *, as_json: bool = False) -> Any:
    """Import a verb and make it a command, guarded: what it raises becomes one sentence and an exit code."""
    try:
        function: Callable[..., None] = point.load()
    except Exception as error:
        package = point.dist.name if point.dist is not None else point.module
        cause = f"{type(error).__name__}: {words_of(error)}"
        words = f"`edgepure {point.name}` of the package {package} cannot be loaded: {cause}"
        fail(ConfigError(words, code="E-cli-broken-verb"), as_json=as_json)
    app = typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=SETTINGS
    )
    app.command(point.name, cls=_Loaded)(guard(function))
    return typer.main.get_command(app)
