"""``edgepure compare``: are two presets, precisions or bundles different? Paired tests on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgepure.cli.groups import grouped
from edgepure.cli.options import DebugOption, JsonOption, given
from edgepure.machine.packages import needs


@dataclass(kw_only=True)
class TableOptions:
    """Files for papers."""

    csv: Annotated[Path | None, given("FILE.csv", "Write all numbers.")] = None
    latex: Annotated[Path | None, given("FILE.tex", "Write a table for LaTeX.")] = None
    svg: Annotated[Path | None, given("FILE.svg", "Draw the differences with their intervals.")] = None


@grouped
def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A bundle that was evaluated, or a file of outcomes; A:PRESET takes one preset.",
            show_default=False,
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The other, likewise.", show_default=False)],
    tables: TableOptions,
    rule: Annotated[
        list[str] | None,
        given("RULE", "Only this decision rule, such as `majority of 5`. May be given several times. Default: all."),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare what two evaluations decided right, image by image, under every attack that both were under.

    Both have to be of the same images. Each row is McNemar's exact test on the images that only one of them decides
    right; the last column is corrected for the number of rows (Holm). `edgepure evaluate` keeps what is needed in the
    bundle beside the card, and in a file with --outcomes.

    Examples:

    \b
      edgepure compare digits:uniform digits:heterogeneous
      edgepure compare fp32.npz int8.npz --latex table.tex --svg figure.svg
    """
    from edgepure.cli.output import emit_json, say, table
    from edgepure.cli.outputs import prepare_file
    from edgepure.files.atomic import write_text

    with needs("comparing needs SciPy", "calibration"):
        import scipy.stats  # noqa: F401
    from ..evaluate.compare import compare as run
    from ..evaluate.compare import to_csv, to_latex, to_svg
    from ..evaluate.outcomes import read_outcomes

    for path, option in ((tables.csv, "--csv"), (tables.latex, "--latex"), (tables.svg, "--svg")):
        prepare_file(path, option, (first, second))
    (place, mine), (other, theirs) = (_named(text) for text in (first, second))
    pairs = None if mine is None and theirs is None else [(mine or theirs or "", theirs or mine or "")]
    found = run(read_outcomes(place), read_outcomes(other), pairs, rule)
    for path, made in ((tables.csv, to_csv), (tables.latex, to_latex), (tables.svg, to_svg)):
        if path is not None:
            write_text(path, made(found))
    if as_json:
        emit_json({"first": str(place), "second": str(other), "comparisons": [c.to_dict() for c in found]})
        return
    columns = ("attack", "rule", "first", "second", "difference", "p", "Holm")
    rows = []
    for c in found:
        name = c.first if c.first == c.second else f"{c.first}, {c.second}"
        difference = f"{100 * c.difference:+.1f} ({100 * c.low:+.1f} to {100 * c.high:+.1f})"
        shares = (f"{100 * n / c.images:.1f} %" for n in (c.right_first, c.right_second))
        rows.append((f"{name}: {c.attack}", c.rule, *shares, difference, f"{c.p:.3g}", f"{c.adjusted:.3g}"))
    table(columns, rows, right=columns[2:])
    say(f"{found[0].images} images; differences in points with paired 95 % intervals; p of McNemar's exact test")


def _named(text: str) -> tuple[Path, str | None]:
    """``PLACE`` or ``PLACE:PRESET``."""
    place, colon, preset = text.rpartition(":")
    return (Path(place), preset) if colon and not Path(text).exists() else (Path(text), None)
