"""The commands of ``edgepure``, put together. Their modules import nothing heavy before they run."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from edgepure_calibration.cli.calibrate import calibrate
from edgepure_calibration.cli.evaluate import evaluate
from edgepure_calibration.cli.quantize import quantize
from edgepure_calibration.cli.tune import tune
from edgepure_export.cli.export import export

from ..errors import ConfigError
from .bench import bench
from .build import build
from .demo import demo
from .doctor import doctor
from .guard import fail
from .images import classify, purify
from .inspect import inspect
from .plan import plan
from .published import presets
from .verify import verify

app = typer.Typer(
    name="edgepure",
    help="Diffusion purification of images on edge devices. A bundle is a folder that `edgepure export` wrote; "
    "`edgepure demo` brings one along.",
    epilog="Exit codes: 0 done, 1 system error or defect, 2 wrong usage or parameters, 3 bundle, 4 images, 5 engine, "
    "6 verification, 7 export, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse empty values, which are variables that are not set: an empty path would be the current folder."""
        for number, text in enumerate(args, start=1):
            option, sign, value = text.partition("=")
            if not text or (option.startswith("--") and sign and not value):
                empty = ConfigError(
                    f"argument {number} of `edgepure {ctx.info_name}` is empty, perhaps a variable that is not set; "
                    "give a value or leave it out"
                )
                fail(empty, as_json="--json" in args)
        return super().parse_args(ctx, args)


for command in (
    demo,
    export,
    calibrate,
    quantize,
    tune,
    build,
    verify,
    evaluate,
    purify,
    classify,
    plan,
    presets,
    inspect,
    bench,
    doctor,
):
    app.command(cls=_Command)(command)


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
