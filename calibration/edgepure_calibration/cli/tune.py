"""``edgepure tune``: presets under a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepure.cli.groups import grouped
from edgepure.cli.options import BundleArgument, given, radius
from edgepure.errors import ConfigError
from edgepure.machine.packages import needs
from edgepure.report.numerals import number

from .shared import DataMeta, OutputOptions, RunOptions, at_work, names

#: What needs a classifier.
LABELS = "tuning, which counts labels that are right,"

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgepure.bundle.bundle import Bundle


@dataclass(kw_only=True)
class BudgetOptions:
    """What a decision may cost, and what that is spent on."""

    budget_calls: Annotated[
        int | None, given("N", "At most N UNet calls for one decision, votes and probe included.")
    ] = None
    budget_ms: Annotated[float | None, given("X", "At most X milliseconds for one decision on this device.")] = None
    objective: Annotated[
        str, typer.Option(help="What the budget is spent on: robust, clean or balanced; or certified, with --radius.")
    ] = "robust"
    radius: Annotated[
        float | None,
        given(
            "R",
            "With --objective certified: the L2 radius that most images are to be certified at. --budget-calls are "
            "then those of one answer, default 1.",
        ),
    ] = None
    n: Annotated[
        int, typer.Option(min=1, help="With --radius: answers counted for an image of the finalists, at most.")
    ] = 10_000
    eight_bits: Annotated[
        bool, typer.Option("--eight-bits", help="With --radius: round images to 8 bits, for exact certificates.")
    ] = False


@dataclass(kw_only=True)
class SearchOptions:
    """What is searched, and how long."""

    method: Annotated[
        list[str] | None,
        given(
            "NAME", "Search only this method (uniform, heterogeneous, repaint, gdmp, gnsp). May be given several times."
        ),
    ] = None
    precision: Annotated[
        str | None, given("A,B,...", "Precisions to search among. Default: all of the bundle that the engine can run.")
    ] = None
    reference: Annotated[
        list[str] | None,
        given(
            "NAME",
            "A preset of the bundle to measure beside the new ones. May be given several times. Default: "
            "as many as are not too expensive, the default and the cheapest first.",
        ),
    ] = None
    trials: Annotated[int, typer.Option(min=1, help="Candidates to try.")] = 60
    images: Annotated[int, typer.Option(min=8, help="Images of the search; at most half of --data.")] = 100
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0
    work: Annotated[
        Path | None,
        given(
            "DIR",
            "Folder where the trials are kept; the same command goes on with them, and one for more "
            "trials too. Default: a hidden one beside the bundle.",
        ),
    ] = None


@grouped
def tune(
    bundle: BundleArgument,
    data: Annotated[
        str, given(DataMeta, "Labelled clean images: a sub-folder per class, or an .npz with `images` and `labels`.")
    ],
    budget: BudgetOptions,
    search: SearchOptions,
    run: RunOptions,
    output: OutputOptions,
    attacked: Annotated[
        str | None,
        given(
            DataMeta,
            "Images that were attacked on the bundle's classifier; FILE.npz:NAME takes the array NAME. "
            "Default: PGD makes them, which needs PyTorch.",
        ),
    ] = None,
    test: Annotated[
        str | None,
        given(DataMeta, "Clean images for the finalists. Default: those of --data that the search did not see."),
    ] = None,
    eps: Annotated[
        str,
        typer.Option(metavar="NUMBER", help="Linf radius of the attacks, on images in [0, 1]; 8/255 is understood."),
    ] = "8/255",
    whitebox: Annotated[
        bool | None,
        given(
            None, "Attack through the whole defence too. Default: if PyTorch is installed.", "--whitebox/--no-whitebox"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Leave the bundle as it is.")] = False,
) -> None:
    """Search the presets of a bundle under a budget, and write the best as `fast`, `balanced` and `robust`.

    Candidates are tried on some images, cheap measurements first. The Pareto points are measured again on other images
    with an attack of another kind; those numbers decide and go into the bundle (tuning/evidence.json). Needs Optuna:
    pip install edgepure[calibration]; white-box attacks need PyTorch too: pip install edgepure[export].

    Ctrl-C loses nothing: every finished trial is kept, and the same command goes on there.

    Examples:

    \b
      edgepure tune digits --data validation.npz --budget-calls 10 --trials 6 --images 24 --eps .1 --report tuning.html
      edgepure tune digits --data train/ --test test/ --budget-ms 20 --trials 12 --objective balanced --eps 0.1
      edgepure tune digits --data d.npz --attacked d.npz:attacked --budget-calls 5 --no-whitebox --trials 12
      edgepure tune digits --data validation.npz --objective certified --radius 0.25 --trials 6 --images 16 --n 500
    """
    from edgepure.cli.output import emit_json

    from ..provider import ProviderSettings

    if budget.objective == "certified" or budget.radius is not None:
        unused = {"--budget-ms": budget.budget_ms, "--attacked": attacked, "--whitebox": whitebox or None,
                  "--method": search.method, "--reference": search.reference}  # fmt: skip
        _tune_certified(bundle, data, test, budget, search, run, output, unused, write=not dry_run)
        return
    if (budget.budget_calls is None) == (budget.budget_ms is None):
        raise ConfigError("give one budget: --budget-calls N or --budget-ms X", code="E-tune-budget")
    with needs("tuning needs Optuna", "calibration"):
        import_module("optuna")
        verb: Any = import_module("edgepure_calibration.tune")
    settings = verb.TuneSettings(
        calls=budget.budget_calls,
        ms=budget.budget_ms,
        objective=budget.objective,
        methods=None if search.method is None else tuple(search.method),
        precisions=names(search.precision) or None,
        references=None if search.reference is None else tuple(search.reference),
        trials=search.trials,
        images=search.images,
        eps=radius(eps),
        seed=search.seed,
    )
    with at_work("tune", bundle, search.work, run, output.report, data, attacked, test, labels_for=LABELS) as begun:
        clean, hit, fresh = (begun.images(source) for source in (data, attacked, test))
        twin = _twin(begun.opened, whitebox, needed=attacked is None)
        through = twin is not None and whitebox is not False
        found = verb.tune(
            begun.opened.path,
            clean,
            replace(settings, whitebox=through),
            attacked=hit,
            test=fresh,
            provider=ProviderSettings(run.provider, threads=run.threads),
            twin=twin,
            work=begun.folder,
            write=not dry_run,
            on_progress=begun.update,
        )
    if output.report is not None:
        import_module("edgepure_calibration.tune.report").write_report(found, output.report)
    if output.as_json:
        emit_json({**found.to_dict(), "written": not dry_run, "unrecorded": list(found.unrecorded)})
        return
    _show(found, bundle, written=not dry_run, report=output.report)


def _tune_certified(
    bundle: Path,
    data: str,
    test: str | None,
    budget: BudgetOptions,
    search: SearchOptions,
    run: RunOptions,
    output: OutputOptions,
    unused: Mapping[str, Any],
    *,
    write: bool,
) -> None:
    """The presets that certify most images at a radius."""
    from edgepure.cli.output import emit_json, say, table

    from ..provider import ProviderSettings

    if budget.objective != "certified" or budget.radius is None:
        raise ConfigError(
            "--objective certified and --radius R belong together: give both", code="E-tune-certified-option"
        )
    for option, value in unused.items():
        if value is not None:
            raise ConfigError(
                f"{option} says nothing about certificates, which hold against every attack; leave it out",
                code="E-tune-certified-option",
            )
    with needs("tuning needs Optuna", "calibration"):
        import_module("optuna")
        verb: Any = import_module("edgepure_calibration.tune")
    settings = verb.CertifiedSettings(
        radius=budget.radius,
        calls=budget.budget_calls or 1,
        trials=search.trials,
        images=search.images,
        n=min(1000, budget.n),
        final_n=budget.n,
        seed=search.seed,
    )
    precision = names(search.precision) or ("fp32",)
    with at_work("tune", bundle, search.work, run, output.report, data, test, labels_for=LABELS) as begun:
        images, fresh = (begun.images(source) for source in (data, test))
        found = verb.tune_certified(
            begun.opened.path,
            images,
            settings,
            test=fresh,
            provider=ProviderSettings(run.provider, precision[0], threads=run.threads),
            eight_bits=budget.eight_bits,
            work=begun.folder,
            write=write,
            on_progress=begun.update,
        )
    if output.report is not None:
        verb.write_certified_report(found, output.report)
    if output.as_json:
        emit_json({**found.to_dict(), "written": write})
        return
    columns = ("preset", "UNet calls", f"certified at r = {settings.radius:g}", "answered right")
    named = {id(p): ", ".join(n for n, c in found.chosen.items() if c is p) or "-" for p in found.finalists}
    rows = [
        (named[id(p)], str(p.calls), _share(p.attacked), _share(p.clean), p.candidate.summary())
        for p in found.finalists
    ]
    table((*columns, "what it does"), rows, right=columns[1:])
    say("in brackets: 95 % Clopper-Pearson intervals")
    if output.report is not None:
        say(f"report: {output.report}")
    if write:
        say(f"\nwritten into {bundle}: presets {', '.join(found.chosen)}, and tuning/certified.json")
        say(f"next: edgepure certify {bundle} --data DATA --preset certified --radius {settings.radius:g}")


def _show(found: Any, bundle: Path, *, written: bool, report: Path | None) -> None:
    from edgepure.cli.output import counted, say, table

    names: dict[str, list[str]] = {}
    for name, point in found.chosen.items():
        names.setdefault(point.candidate.key, []).append(name)
    say(
        f"{found.bundle}: {counted(len(found.trials), 'candidate')} tried for at most {found.budget.limit:g} "
        f"{found.budget.unit}, {len(found.finalists)} measured again"
    )
    rows = [(", ".join(names.get(p.candidate.key, ("-",))), p) for p in found.finalists]
    rows += [(f"{name} (was there)", p) for name, p in found.references.items()]
    columns = ("preset", found.budget.unit, "clean", "transferred", "white-box")
    table(
        (*columns, "what it does"),
        (
            (name, number(p.cost), *map(_share, (p.clean, p.attacked, p.whitebox)), p.candidate.summary())
            for name, p in rows
        ),
        right=columns[1:],
    )
    say("in brackets: 95 % Clopper-Pearson intervals")
    for name, curve in found.converged.items():
        say(f"{name}, white-box: {curve}")
    for name, calls in found.skipped.items():
        say(f"{name} was not measured: it takes {calls} UNet calls")
    if report is not None:
        say(f"report: {report}")
    if written:
        say(f"\nwritten into {bundle}: presets {', '.join(found.chosen)}, and tuning/evidence.json")
        name, point = next(iter(found.chosen.items()))
        graphs = "" if point.candidate.precision == "fp32" else f" --precision {point.candidate.precision}"
        say(f"next: edgepure classify {bundle} IMAGES --preset {name}{graphs}")


def _share(score: Any) -> str:
    if score is None:
        return "-"
    low, high = score.interval
    return f"{100 * score.fraction:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _twin(opened: Bundle, whitebox: bool | None, *, needed: bool) -> Any:
    """Gives the PyTorch twin in a precision: to attack through the defence, and to make transferred attacks."""
    if whitebox is False and not needed:
        return None
    what = "a white-box attack needs" if whitebox else "without --attacked, making attacked images needs"
    try:
        with needs(f"{what} PyTorch", "export"):
            load_twin = import_module("edgepure_export.twin.twin").load_twin
    except ConfigError:
        if whitebox is None and not needed:
            return None
        raise
    return lru_cache(lambda precision: load_twin(opened, precision=precision))
