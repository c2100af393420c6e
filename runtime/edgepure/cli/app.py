"""The command ``edgepure``: what it says about itself, and the verbs that the installed packages bring."""

from __future__ import annotations

from typing import Annotated

import typer

from .listing import EPILOG, HELP, VERSION_HELP
from .verbs import SETTINGS, Verbs

app = typer.Typer(
    name="edgepure",
    cls=Verbs,
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(version("edgepure"))
        except PackageNotFoundError:
            typer.echo("not installed (running from a source folder)")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help=VERSION_HELP)] = False,
) -> None:
    """Diffusion purification of images on edge devices."""
