"""From a bundle, labelled images and a budget to the presets ``fast``, ``balanced`` and ``robust``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepure import Bundle
from edgepure.errors import ConfigError
from edgepure.images.dataset import LabelledImages
from edgepure.machine.packages import needs
from edgepure.report.environment import environment
from edgepure.report.numerals import number
from edgepure.types import Progress

from ..progress import Meter
from ..provider import ProviderSettings
from ..work import Work, open_work
from .budget import Budget, CallBudget, TimeBudget
from .candidate import Candidate
from .converged import converge_all
from .depends import measured_by, search_depends
from .deployed import DeployedGraphs
from .evidence import MEASURED_BY, earlier_points, write_presets
from .foresight import Foresight
from .measuring import Measuring
from .points import Point, choose, finalists
from .protocols import describe_run
from .result import Tuning
from .search import search
from .settings import TuneSettings
from .space import PRESET_NAMES, SearchSpace, searched_precisions
from .splits import Split, make_splits

if TYPE_CHECKING:
    from .trials import Trials
    from .whitebox import TwinLoader, WhiteBox

#: Unless they are named, presets of the bundle are measured beside the finalists, the default and then the cheapest
#: first, until their decisions together take this many times the calls of the most expensive trial: on a bundle with
#: presets of a hundred calls they would take most of the time.
REFERENCE_CALLS = 20


def tune(
    bundle: str | PathLike[str],
    data: LabelledImages,
    settings: TuneSettings,
    *,
    attacked: LabelledImages | None = None,
    test: LabelledImages | None = None,
    provider: ProviderSettings | None = None,
    twin: TwinLoader | None = None,
    work: str | PathLike[str] | None = None,
    write: bool = True,
    on_progress: Progress | None = None,
) -> Tuning:
    """Search presets for a bundle and put the best ones into it as ``fast``, ``balanced`` and ``robust``.

    Args:
        bundle: its directory.
        data: labelled clean images; a part is searched on, others measure the finalists.
        settings: the budget of one decision, what is searched, sizes and seeds.
        attacked: images attacked on the bundle's classifier; None: they are made with ``twin``.
        test: clean images for the finalists; None: those of ``data`` that the search does not see.
        provider: what runs the deployed graphs; its precision does not count, see `TuneSettings.precisions`.
        twin: gives the differentiable PyTorch twin of the bundle in a precision; `edgepure_export.twin.twin.load_twin`
            makes it. None: there are no white-box attacks, and ``attacked`` is needed.
        work: folder of the trials; None: a hidden one beside the bundle. The same call goes on with it, and a call for
            more trials too.
        write: put the presets and ``tuning/evidence.json`` into the bundle; it is changed as a whole or not at all.
            Presets that an earlier tuning measured in the same way are not measured again.
        on_progress: called with (share of the work that is done, what is being done).

    Raises:
        ConfigError: no preset can meet the budget, or data that cannot serve.
        BundleError: the bundle is damaged, or was changed meanwhile.
        ProviderError: the engine is not active, or cannot run one of the precisions.
        EdgepureError: another run is at work in the folder.
    """
    settings.check_budget()
    if settings.whitebox and twin is None:
        raise ConfigError("a white-box attack needs the bundle's PyTorch twin", code="E-tune-twin")
    report: Progress = on_progress or (lambda share, words: None)
    runs_on, opened = provider or ProviderSettings(), Bundle.open(bundle)
    opened.manifest.require_classifier("tuning, which counts labels that are right,")
    precisions = searched_precisions(opened.manifest, settings, runs_on.provider)
    folder = opened.path.with_name(f".{opened.path.name}.tune") if work is None else Path(work)
    with ExitStack() as held:
        graphs = held.enter_context(DeployedGraphs(bundle, runs_on.provider, runs_on.threads))
        for name in settings.references or ():
            graphs.purifier().preset(name)  # one that there is not is an error now
        store = held.enter_context(open_work(folder, {}))
        run = _Run(opened, settings, graphs, runs_on, twin, precisions)
        report(0.0, "attacking the plain classifier" if attacked is None else "checking the images")
        run.split(data, attacked, test)
        result = run.search_and_choose(store, report)
        if write:
            report(0.99, "writing the presets")
            unrecorded = write_presets(opened.path, result, twin, graphs.purifier(), data)
            result = replace(result, unrecorded=unrecorded)
    report(1.0, "done")
    return result


class _Run:
    """One tuning: what is fixed from the start, then search, finalists and choice."""

    def __init__(
        self,
        bundle: Bundle,
        settings: TuneSettings,
        graphs: DeployedGraphs,
        runs_on: ProviderSettings,
        twin: TwinLoader | None,
        precisions: tuple[str, ...],
    ) -> None:
        self.bundle, self.settings, self.graphs, self.runs_on = bundle, settings, graphs, runs_on
        self.twin, self.precisions = twin, precisions
        self.seeds = settings.seed * 1000 + 100, settings.seed * 1000 + 200
        self.repeats = settings.latency_repeats if settings.ms is not None else 0
        self.attacks: dict[str, Any] = {}
        self.splits: tuple[Split, Split]
        self.search: Measuring
        self.final: Measuring

    def split(self, data: LabelledImages, attacked: LabelledImages | None, test: LabelledImages | None) -> None:
        """Draw the images of the search and of the finalists, and make the attacks."""
        settings, graphs, transfer = self.settings, self.graphs, None
        whitebox: tuple[WhiteBox | None, WhiteBox | None] = None, None
        if self.twin is not None:
            from . import whitebox as attacks

            transfer = attacks.transfer(self.twin, graphs.purifier(), settings.eps)
            self.attacks["transferred"] = attacks.transfer_protocol(settings)
            if settings.whitebox:
                classes = len(self.bundle.manifest.classes)
                first, second = (
                    attacks.search_attack(self.twin, settings),
                    attacks.final_attack(self.twin, settings, classes),
                )
                self.attacks |= {
                    "white-box of the search": first.protocol(),
                    "white-box of the finalists": second.protocol(),
                }
                whitebox = first, second
        self.splits = make_splits(data, attacked, test, settings, graphs.purifier().logits, transfer)
        self.search, self.final = (
            Measuring(graphs, split, seed, self.repeats, attack)
            for split, seed, attack in zip(self.splits, self.seeds, whitebox, strict=True)
        )
        self.protocols = describe_run(
            self.attacks, self.splits, settings, self.seeds, attacked is not None, test is not None
        )

    def search_and_choose(self, store: Work, report: Progress) -> Tuning:
        settings, manifest = self.settings, self.bundle.manifest
        depends = search_depends(self.bundle, settings, self.splits, self.precisions, self.runs_on)
        trials = _open_trials(store.depending(depends), settings.seed)
        budget = self._budget(store.depending(depends))
        space = SearchSpace(
            manifest, budget, methods=settings.methods, precisions=self.precisions, most_votes=settings.most_votes
        )
        own = self._references()
        foresight = Foresight(
            self.search,
            self.final,
            settings.trials,
            settings.finalists + len(own),
            2 if settings.whitebox and settings.final_doublings else 0,
            budget,
            Candidate(self.graphs.purifier().preset()),
            report,
        )
        with trials.timed():
            points = search(trials, space, self.search, settings.trials, foresight)
        whole = [p for p in points if not p.dropped]
        if not whole:
            cheapest = min(p.cost for p in points)
            raise ConfigError(
                f"none of {len(points)} presets met {budget.limit:g} {budget.unit}; the cheapest took "
                f"{number(cheapest)}: give more, or fewer calls",
                code="E-tune-budget-missed",
            )
        best = finalists(whole, settings.objective, settings.finalists)
        how = measured_by(self.bundle, self.final, self.runs_on)
        earlier = {} if self.repeats else earlier_points(self.bundle, how)  # times of another day do not compare
        known = {c.key: earlier[c.key] for c in own.values() if c.key in earlier}
        skipped = self._too_expensive(own, known, points)
        wanted = {c.key: c for c in (*(p.candidate for p in best), *(c for n, c in own.items() if n not in skipped))}
        with trials.timed():
            final = self._measure_again(store.depending({"final": how}), wanted, known, foresight)
        found = sorted((replace(final[p.candidate.key], number=p.number) for p in best), key=lambda p: p.cost)
        within = [p for p in found if p.cost <= budget.limit]
        if not within:
            raise ConfigError(
                f"no finalist met {budget.limit:g} {budget.unit} when it was timed again; the cheapest took "
                f"{number(min(p.cost for p in found))}: give a little more, or a quieter machine",
                code="E-tune-finalists",
            )
        chosen = choose(within, settings.objective, settings.tolerance)
        with trials.timed():
            asked = settings.final_doublings
            converged = converge_all(self.final, chosen, asked, store.depending({"final": how}), foresight)
        return Tuning(
            bundle=manifest.name,
            budget=budget,
            settings=settings,
            trials=points,
            finalists=found,
            references={name: final[c.key] for name, c in own.items() if name not in skipped},
            skipped=skipped,
            chosen={
                name: replace(point, whitebox=converged[name].lowest) if name in converged else point
                for name, point in chosen.items()
            },
            converged=converged,
            protocols=self.protocols,
            facts={
                **environment(self.runs_on.provider),
                "provider": self.runs_on.provider,
                "threads": self.runs_on.threads,
                "seconds": round(trials.seconds, 1),
                MEASURED_BY: how,
                "taken from an earlier tuning": ", ".join(n for n, c in own.items() if c.key in known) or "nothing",
            },
        )

    def _references(self) -> dict[str, Candidate]:
        """Presets of the bundle to measure beside the finalists."""
        names = self.settings.references
        if names is None:
            names = tuple(name for name in self.bundle.manifest.presets if name not in PRESET_NAMES)
        return {name: Candidate(self.graphs.purifier().preset(name)) for name in names}

    def _too_expensive(
        self, own: Mapping[str, Candidate], known: Mapping[str, Point], points: Sequence[Point]
    ) -> dict[str, int]:
        """References that nobody asked for by name and that cost too much, with their UNet calls."""
        if self.settings.references is not None:
            return {}
        left = REFERENCE_CALLS * max(p.calls for p in points)
        costs = {name: self.graphs.calls(c) for name, c in own.items() if c.key not in known}
        default, skipped = self.bundle.manifest.default_preset, dict[str, int]()
        for name in sorted(costs, key=lambda n: (n != default, costs[n])):
            left -= costs[name]
            if left < 0:
                skipped[name] = costs[name]
        return skipped

    def _budget(self, store: Work) -> Budget:
        """The budget; the price of a UNet call is measured once a study, so that its trials share one space."""
        calls, ms = self.settings.calls, self.settings.ms
        if calls is not None:
            return CallBudget(calls)
        assert ms is not None
        known = store.recall({"what": "price"})
        if known is None:
            votes, clean = self.settings.most_votes, self.splits[0].clean
            prices = [self.graphs.time_budget(ms, clean, p, votes).to_dict() for p in self.precisions]
            known = min(prices, key=lambda p: p["call_ms"]["1"])
            store.remember({"what": "price"}, known)
        return TimeBudget(ms, known["overhead_ms"], {int(v): t for v, t in known["call_ms"].items()})

    def _measure_again(
        self, store: Work, wanted: Mapping[str, Candidate], known: Mapping[str, Point], foresight: Foresight
    ) -> dict[str, Point]:
        """Every candidate under the protocol of the finalists; what is known or kept is not measured again."""
        found = dict(known)
        for key in wanted:
            kept = store.recall({"candidate": key})
            if key not in found and kept is not None:
                found[key] = Point.from_dict(kept)
        costs = {key: self.final.cost(candidate) for key, candidate in wanted.items() if key not in found}
        meter: Meter = foresight.final(sum(costs.values()))
        for place, (key, cost) in enumerate(costs.items(), start=1):
            words = f"finalist {place} of {len(costs)}"

            def on_share(share: float, cost: float = cost, words: str = words) -> None:
                meter.show(share * cost, words)

            on_share(0.0)
            found[key] = self.final.full(wanted[key], on_share)
            store.remember({"candidate": key}, found[key].to_dict())
            meter.add(cost, words)
        return found


def _open_trials(store: Work, seed: int) -> Trials:
    with needs("tuning needs Optuna", "calibration"):
        from .trials import Trials
    return Trials(store, seed)
