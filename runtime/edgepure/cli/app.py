"""The command ``edgepure``: what it says about itself, and the verbs that the installed packages bring."""

from __future__ import annotations

from typing import Annotated

import typer

from .verbs import SETTINGS, Verbs

app = typer.Typer(
    name="edgepure",
    cls=Verbs,
    help="Diffusion purification of images on edge devices. A bundle is a folder that `edgepure export` wrote; "
    "`edgepure demo` brings one along.",
    epilog="Exit codes: 0 done, 1 system error or defect, 2 wrong usage or parameters, 3 bundle, 4 images, 5 engine, "
    "6 verification, 7 export, 130 interrupted.",
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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Diffusion purification of images on edge devices."""
