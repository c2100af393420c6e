"""``edgepure demo``: attacked digits, purified and classified, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DebugOption, JsonOption, ProviderOption, ThreadsOption, given

if TYPE_CHECKING:
    from ..purify.scores import Score


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the report.")] = Path("out"),
    preset: Annotated[
        list[str], given("NAME", "Run this preset only; may be given several times. Default: all of them.")
    ] = [],  # noqa: B006 - typer copies it
    bundle: Annotated[
        Path | None, given("BUNDLE", "Another bundle of the digits sample. Default: the packaged one.")
    ] = None,
    provider: ProviderOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Purify and classify attacked digits, and write report.html and report.json. Needs no PyTorch and no network.

    Examples:

    \b
      edgepure demo
      edgepure demo --out /tmp/report --preset heterogeneous --json
    """
    from ..demo import run_demo
    from .output import emit_json, say, table
    from .outputs import prepare_file
    from .progress import Progress

    prepare_file(out / "report.html", "--out")
    with Progress("opening the digits bundle") as bar:
        report = run_demo(
            out,
            presets=preset or None,
            bundle=bundle,
            provider=provider,
            threads=threads,
            on_progress=lambda share, what: bar.update(share, f"running {what}"),
        )
    if as_json:
        emit_json({**report.to_dict(), "files": [str(out / "report.html"), str(out / "report.json")]})
        return
    say(f"{report.title}. {report.summary}\n")
    lines = [("classifier alone", "0", "-", *(_percent(report.plain.get(k)) for k in ("clean", "attacked")))]
    for m in report.methods:
        ms = "-" if m.ms_per_image is None else f"{m.ms_per_image:.1f}"
        lines.append((m.name, f"{m.unet_calls_decision:.4g}", ms, _percent(m.clean), _percent(m.attacked)))
    columns = ("method", "UNet calls", "ms/image", "clean", "attacked")
    table(columns, lines, right=columns[1:])
    for sentence in report.notes:
        say(f"\n{sentence}")
    say(f"\nwritten: {out / 'report.html'}, {out / 'report.json'}")


def _percent(score: Score | None) -> str:
    return "-" if score is None else f"{100.0 * score.fraction:.1f} %"
