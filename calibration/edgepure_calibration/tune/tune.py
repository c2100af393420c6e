"""From a bundle, labelled images and a budget to the presets ``fast``, ``balanced`` and ``robust``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from edgepure import Bundle
from edgepure.bundle.manifest import Manifest
from edgepure.engines.kinds import check_variant
from edgepure.errors import ConfigError, ProviderError
from edgepure.images.dataset import LabelledImages
from edgepure.machine.packages import needs
from edgepure.report.environment import environment

from .budget import Budget, CallBudget, TimeBudget
from .candidate import Candidate
from .evidence import MEASURED_BY, earlier_points, write_presets
from .fingerprint import fingerprint, measured_by
from .measuring import Measuring
from .meter import Meter
from .parts import Part, make_parts
from .points import Point, choose, finalists
from .protocols import describe_run, make_attacks
from .result import Tuning
from .search import search
from .settings import TuneSettings
from .space import PRESET_NAMES, SearchSpace
from .study_file import study_file

if TYPE_CHECKING:
    from .study import Study
    from .whitebox import TwinLoader

#: Called with (share of the work that is done, what is being done).
TuneProgress = Callable[[float, str], None]

#: Unless they are named, presets of the bundle are measured beside the finalists only if a decision takes at most this
#: many times the calls of the most expensive trial.
REFERENCE_CALLS = 20
#: Shares of the whole work, for the progress: the finalists take about as long as the search.
_SEARCH_SHARE = 0.5


def tune(
    bundle: str | PathLike[str],
    data: LabelledImages,
    *,
    calls: int | None = None,
    ms: float | None = None,
    attacked: LabelledImages | None = None,
    test: LabelledImages | None = None,
    study: str | PathLike[str] | None = None,
    settings: TuneSettings = TuneSettings(),  # noqa: B008 - frozen
    methods: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    provider: str = "cpu",
    threads: int | None = None,
    whitebox: bool = True,
    twin: TwinLoader | None = None,
    references: Sequence[str] | None = None,
    write: bool = True,
    on_progress: TuneProgress | None = None,
) -> Tuning:
    """Search presets for a bundle and put the best ones into it as ``fast``, ``balanced`` and ``robust``.

    Args:
        bundle: its directory.
        data: labelled clean images; a part is searched on, others measure the finalists.
        calls, ms: the budget of one decision, in UNet calls or in milliseconds on this device; one of them.
        attacked: images attacked on the bundle's classifier; None: they are made with ``twin``.
        test: clean images for the finalists; None: those of ``data`` that the search does not see.
        study: file of the trials; None: ``<bundle>.tuning.journal`` beside the bundle. The same call goes on with it.
        settings: sizes and seeds.
        methods: to search among; None: all that the bundle can run.
        precisions: to search among; None: all that the bundle has for this provider.
        provider, threads: engine, as `edgepure.load` takes them.
        whitebox: attack through the defence, which needs ``twin``.
        twin: gives the differentiable PyTorch twin of the bundle in a precision; `edgepure_export.twin.twin.load_twin`
            makes it. None: there are no white-box attacks, and ``attacked`` is needed.
        references: presets of the bundle to measure beside the finalists; None: all that are not too expensive. Those
            that an earlier tuning measured in the same way (``tuning/evidence.json``) are not measured again.
        write: put the presets and ``tuning/evidence.json`` into the bundle; it is changed as a whole or not at all.
        on_progress: see `TuneProgress`.

    Raises:
        ConfigError: no preset can meet the budget, data that cannot serve, or a study of something else.
        BundleError: the bundle is damaged, or was changed meanwhile.
        ProviderError: the engine is not active, or cannot run one of ``precisions``.
        EdgepureError: another run works with the study.
    """
    if (calls is None) == (ms is None):
        raise ConfigError("give one budget: UNet calls or milliseconds")
    if whitebox and twin is None:
        raise ConfigError("a white-box attack needs the bundle's PyTorch twin")
    report = on_progress or (lambda share, what: None)
    opened = Bundle.open(bundle)
    offered = ("fp32", *opened.manifest.variants)
    for name in precisions or ():
        if name not in offered:
            raise ConfigError(f"the bundle has no graphs in {name}; it has {', '.join(offered)}")
        check_variant(opened.manifest, name, provider)
    transfer, attacks, protocols = make_attacks(twin, settings, whitebox, len(opened.manifest.classes))
    with study_file(opened.path, study) as path, Meter(bundle, provider, threads) as meter:
        for name in references or ():
            meter.purifier().preset(name)  # one that there is not is an error now
        report(0.0, "attacking the plain classifier" if attacked is None else "checking the images")
        parts = make_parts(data, attacked, test, settings, meter.purifier().logits, transfer)
        chosen_precisions = tuple(precisions or (p for p in offered if _made_for(opened.manifest, p, provider)))
        made_for = fingerprint(opened, settings, parts, calls, ms, methods, chosen_precisions, whitebox, provider)
        trials = _open_study(path, made_for, settings.seed)
        budget = _budget(trials, meter, calls, ms, parts[0], settings, chosen_precisions)
        space = SearchSpace(
            opened.manifest, budget, methods=methods, precisions=chosen_precisions, most_votes=settings.most_votes
        )
        repeats = settings.latency_repeats if ms is not None else 0
        seeds = settings.seed * 1000 + 100, settings.seed * 1000 + 200
        measuring = Measuring(meter, parts[0], seeds[0], repeats, attacks[0])
        with trials.timed():
            points = search(
                trials, space, measuring, settings.trials,
                lambda done, of: report(_SEARCH_SHARE * done / of, f"trial {done + 1} of {of}"),
            )  # fmt: skip
        whole = [p for p in points if not p.dropped]
        if not whole:
            cheapest = min(p.cost for p in points)
            raise ConfigError(
                f"none of {len(points)} presets met {budget.limit:g} {budget.unit}; the cheapest took {cheapest:.3g}"
            )
        best = finalists(whole, settings.objective, settings.finalists)
        again = Measuring(meter, parts[1], seeds[1], repeats, attacks[1])
        names = [n for n in opened.manifest.presets if n not in PRESET_NAMES] if references is None else references
        own = {name: Candidate(meter.purifier().preset(name)) for name in names}
        how = measured_by(opened, again, provider)
        earlier = {} if repeats else earlier_points(opened, how)  # times of another day do not compare
        known = {c.key: earlier[c.key] for c in own.values() if c.key in earlier}
        most = REFERENCE_CALLS * max(p.calls for p in points)
        costs = {n: meter.calls(c) for n, c in own.items() if references is None and c.key not in known}
        skipped = {name: cost for name, cost in costs.items() if cost > most}
        wanted = {c.key: c for c in (*(p.candidate for p in best), *(c for n, c in own.items() if n not in skipped))}
        with trials.timed():
            final = _measure_again(trials, again, wanted, known, how, settings, report)
        result = Tuning(
            bundle=opened.manifest.name,
            budget=budget,
            settings=settings,
            trials=points,
            finalists=sorted((replace(final[p.candidate.key], number=p.number) for p in best), key=lambda p: p.cost),
            references={name: final[c.key] for name, c in own.items() if name not in skipped},
            skipped=skipped,
            chosen={},
            protocols=describe_run(protocols, parts, settings, seeds, attacked is not None, test is not None),
            facts={
                **environment(provider),
                "provider": provider,
                "threads": threads,
                "study": path.name,
                "seconds": round(trials.seconds, 1),
                **made_for,
                MEASURED_BY: how,
                "taken from an earlier tuning": ", ".join(n for n, c in own.items() if c.key in known) or "nothing",
            },
        )
        within = [p for p in result.finalists if p.cost <= budget.limit]
        if not within:
            raise ConfigError(
                f"no finalist met {budget.limit:g} {budget.unit} when it was timed again; the cheapest took "
                f"{min(p.cost for p in result.finalists):.3g}: give a little more, or a quieter machine"
            )
        result = replace(result, chosen=choose(within, settings.objective, settings.tolerance))
        if write:
            report(0.99, "writing the presets")
            result = replace(result, unrecorded=write_presets(opened.path, result, twin, meter.purifier(), data))
    report(1.0, "done")
    return result


def _made_for(manifest: Manifest, precision: str, provider: str) -> bool:
    """Whether a variant can run on this engine."""
    try:
        check_variant(manifest, precision, provider)
    except ProviderError:
        return False
    return True


def _open_study(path: Path, made_for: Mapping[str, str], seed: int) -> Study:
    with needs("tuning needs Optuna", "calibration"):
        from .study import Study
    return Study(path, made_for, seed)


def _budget(
    study: Study,
    meter: Meter,
    calls: int | None,
    ms: float | None,
    part: Part,
    settings: TuneSettings,
    precisions: Sequence[str],
) -> Budget:
    """The budget; the price of a UNet call is measured once a study, so that its trials share one space."""
    if calls is not None:
        return CallBudget(calls)
    assert ms is not None
    known = study.recall("price")
    if known is None:
        prices = [meter.time_budget(ms, part.clean, p, settings.most_votes).to_dict() for p in precisions]
        known = min(prices, key=lambda p: p["call_ms"]["1"])
        study.remember("price", known)
    return TimeBudget(ms, known["overhead_ms"], {int(v): t for v, t in known["call_ms"].items()})


def _measure_again(
    study: Study,
    measuring: Measuring,
    wanted: Mapping[str, Candidate],
    known: Mapping[str, Point],
    how: str,
    settings: TuneSettings,
    report: TuneProgress,
) -> dict[str, Point]:
    """Every candidate under the protocol of the finalists; what is known or in the study is not measured again."""
    found: dict[str, Point] = {}
    total = sum(measuring.meter.calls(c) for c in wanted.values())
    done = 0.0
    for key, candidate in wanted.items():
        name = f"final {how[:16]} {key}"
        stored = study.recall(name)
        size = measuring.meter.calls(candidate)
        what = f"finalist {len(found) + 1} of {len(wanted)}"
        if key in known:
            found[key] = known[key]
        elif stored is None:

            def on_step(step: int, *, before: float = done, size: int = size, what: str = what) -> None:
                share = (before + size * step / settings.final_steps) / total
                report(_SEARCH_SHARE + (0.98 - _SEARCH_SHARE) * share, what)

            on_step(0)
            found[key] = measuring.full(candidate, on_step)
            study.remember(name, found[key].to_dict())
        else:
            found[key] = Point.from_dict(stored)
        done += size
    return found
