"""The stages of one quantization: what is recorded and measured, and the search for layers that have to stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Any

import numpy as np

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.entries import GraphName
from edgepure.engines.kinds import check_kernels
from edgepure.errors import ConfigError
from edgepure.methods.presets import Preset
from edgepure.purify.purifier import Purifier
from edgepure.report.numerals import number
from edgepure.types import Float32, Progress
from edgepure_export.graphs.half_rules import HALF_TYPES
from edgepure_export.graphs.precision import matching
from edgepure_export.graphs.qdq import scheme_of, schemes_of
from edgepure_export.graphs.qdq_rules import Tap
from edgepure_export.graphs.quantized_numbers import Range

from ..data_checks import check_images
from ..digest import digest
from ..progress import Meter
from ..provider import ProviderSettings
from ..work import Work, bundle_key
from .certificates import Counted, carry_to, pair_calls, read_certificates
from .draft import Draft, DraftPurifier, build, layers
from .gate import Decisions
from .judge import Data
from .kernels import KernelChoice, fastest_kernel
from .ranges import measure_ranges
from .recording import Samples, of_slots, record
from .sensitivity import CALLS, measure_sensitivity, output_error
from .settings import Attempt, QuantizeSettings
from .speed import ROUND_SECONDS, ROUNDS, Speed, compare_speed, step_calls

#: Images whose trajectories are recorded, and at least so many calls of the step graph.
CALIBRATION_IMAGES, CALIBRATION_CALLS = 16, 128
#: How many of the most sensitive layers stay in higher precision, one attempt after the other.
ATTEMPTS = (1, 2, 4, 8, 16)
#: Batches at which the speed is compared.
SPEED_BATCHES = (1, 8)
#: Told the share of a stage that is done.
OnShare = Callable[[float], None]


class Stages:
    """One quantization: what is fixed from the start, and the stages."""

    def __init__(
        self,
        bundle: Bundle,
        settings: QuantizeSettings,
        provider: ProviderSettings,
        fp32: Purifier,
        clean: Data,
        attacked: Data | None,
        report: Progress | None,
    ) -> None:
        self.bundle, self.settings, self.provider, self.fp32 = bundle, settings, provider, fp32
        names = settings.presets or (bundle.manifest.default_preset,)
        if settings.precision not in HALF_TYPES:
            scheme_of(settings.precision, settings.target)  # one that there is not is an error now
        if settings.precision == "fp8":
            check_kernels(provider.provider, "fp8")  # a twin of it holds float8 values, too
        self.presets: dict[str, Preset] = {name: fp32.preset(name) for name in names}
        plans = [fp32.plan(preset) for preset in self.presets.values()]
        self.plan = plans[0]
        self.graph: GraphName = "step_learned" if any(p.learned_variance for p in plans) else "step"
        self.layers = layers(bundle, self.graph, settings.precision)
        if not self.layers:
            raise ConfigError(
                f"the network has no operators that {settings.precision} could make smaller", code="E-quantize-layers"
            )
        self.keep = matching(self.layers, settings.keep) if settings.keep else set()
        parts = {"clean": clean} if attacked is None else {"clean": clean, "attacked": attacked}
        for name, part in parts.items():
            check_images(part, f"the {name} images", 4)
        self.counted: list[Counted] = []
        if settings.certificates is not None:
            if settings.target != provider.provider:
                raise ConfigError(
                    f"certificates are about graphs that run: {settings.precision} for {settings.target} cannot be run "
                    f"on {provider.provider}; quantize it there, or certify the variant itself",
                    code="E-carry-target",
                )
            given = np.concatenate([part.images for part in parts.values()])
            key = provider.key(bundle.manifest)
            self.counted = read_certificates(
                settings.certificates, given, fp32.planner, bundle_key(bundle.manifest), key["provider"]
            )
        self.carried: dict[str, Any] | None = None
        calibration, self.parts = _split(parts, settings.seed)
        self.calibration = of_slots(fp32, calibration)
        self.decisions = Decisions(fp32, self.parts, self.presets, settings.redraws, settings.seed, settings.limits)
        self.samples: Samples
        self.ranges: dict[Tap, Range] | None = None
        #: Of int8 on this CPU.
        self.kernel: KernelChoice | None = None
        self.sensitivity: dict[str, float] = {}
        self._report = report
        self._meter = Meter(1.0)
        self._costs: dict[str, float] = {}

    def depends(self) -> dict[str, Any]:
        """What the kept results depend on besides the fp32 graphs and what runs them."""
        return {
            "presets": {name: preset.model_dump(mode="json") for name, preset in self.presets.items()},
            "data": {name: part.sha256 for name, part in self.parts.items()},
            "calibration": digest(self.calibration.tobytes().hex()),
            "settings": asdict(self.settings),
            "threads": self.provider.threads,
        }

    @property
    def _kernels(self) -> bool:
        """Whether there are several integer kernels here to choose from."""
        precision, target = self.settings.precision, self.settings.target
        if precision in HALF_TYPES or target != self.provider.provider:
            return False
        return len(schemes_of(precision, target)) > 1

    def measure(self, work: Work) -> None:
        """Recorded calls, and where they are needed the ranges of the activations and the fastest kernel."""
        settings, precision = self.settings, self.settings.precision
        self._foresee()
        self.samples = self._samples(work)
        if precision in HALF_TYPES:
            return
        known = work.recall({"what": "ranges"})
        with self._stage("ranges", "measuring the ranges of activations", known is not None) as on_share:
            if known is None:
                found = measure_ranges(
                    self.bundle.graph_path(self.graph),
                    scheme_of(precision, settings.target),
                    self.samples,
                    work.scratch("ranges"),
                    self.provider.threads,
                    on_share,
                )
                known = [[*tap, *bounds] for tap, bounds in found.items()]
                work.remember({"what": "ranges"}, known)
        self.ranges = {(name, side): (low, high) for name, side, low, high in known}
        if self._kernels:
            self.kernel = self._kernel(work, self.ranges)

    def search(self, work: Work) -> tuple[Draft, list[Attempt], tuple[Speed, ...], list[str]]:
        """Keep ever more of the most sensitive layers until the gate holds."""
        draft = self._build(work, self.keep)
        speeds = self._speeds(draft)
        slow = self._slow(speeds)
        if slow:  # with more layers in higher precision it would be slower still
            return draft, [], speeds, slow
        self._fp32_decisions(work)
        if self.ranges is not None:
            self._most_sensitive(work)
        attempts = [self._attempt(draft)]
        for more in ATTEMPTS:
            if not attempts[-1].reasons:
                break
            order = self._most_sensitive(work)
            if more < len(order):
                self._meter.expect(self._costs["attempt"])
                draft = self._build(work, self.keep | set(order[:more]))
                attempts.append(self._attempt(draft))
        if len(attempts) > 1:
            self._meter.expect(self._costs["speed"])
            speeds = self._speeds(draft)
        reasons = [*attempts[-1].reasons, *self._slow(speeds)]
        if self.counted and not reasons:
            self._carry(draft)
        return draft, attempts, speeds, reasons

    # ---- the time that it takes --------------------------------------------------------------------------------------

    def _foresee(self) -> None:
        """About how many seconds each stage takes, from the time of a UNet call here."""
        stepper = self.fp32.stepper(self.graph)
        batch = min(8, stepper.capacity)
        calls, plan = step_calls(stepper, self.plan, batch), self.plan
        calls(1)  # the first one allocates
        start = perf_counter()
        calls(3)
        call = (perf_counter() - start) / 3 / batch
        rows = sum(self.fp32.plan(preset).unet_calls for preset in self.presets.values())
        decisions = call * sum(self.decisions.cost(name) for name in self.presets)
        quantized = self.settings.precision not in HALF_TYPES
        timed = 2 * sum(ROUNDS * max(ROUND_SECONDS, call * size) for size in SPEED_BATCHES)
        here = self.settings.target == self.provider.provider
        one_graph = 0.2 + 4.0 * call  # to convert and to open one
        self._costs = {
            "recording": call * rows * len(self.calibration),
            "ranges": (1.0 + 3.0 * call * CALIBRATION_CALLS) if quantized else 0.0,
            "kernel": timed + 2 * one_graph if self._kernels else 0.0,
            "speed": timed if here else 0.0,
            "fp32": decisions,
            "sensitivity": len(self.layers) * (one_graph + CALLS * call) if quantized else 0.0,
            "carry": 2 * call * pair_calls(self.fp32, self.counted, self.settings.pairs),
            "attempt": decisions + call * len(plan.rows) * 16 + one_graph,
        }
        self._meter = Meter(sum(self._costs.values()), self._report)

    @contextmanager
    def _stage(self, name: str, words: str, known: bool = False) -> Iterator[OnShare]:
        """A stage; ``known``: an earlier run has done it."""
        cost = self._costs[name]
        if not known:
            self._meter.show(0.0, words)
        yield lambda share: self._meter.show(cost * share, words)
        self._meter.known(cost, words) if known else self._meter.add(cost, words)

    # ---- the stages --------------------------------------------------------------------------------------------------

    def _samples(self, work: Work) -> Samples:
        what = {"what": "samples", "graph": self.graph}
        known = Samples.from_arrays(work.get(what))
        with self._stage("recording", "recording trajectories", known is not None) as on_share:
            if known is None:
                presets, seed = list(self.presets.values()), self.settings.seed + 100
                known = record(self.fp32, presets, self.calibration, CALIBRATION_CALLS, seed, self.graph, on_share)
                work.put(what, known.to_arrays())
        return known

    def _kernel(self, work: Work, ranges: Mapping[Tap, Range]) -> KernelChoice:
        known = work.recall({"what": "kernel"})
        with self._stage("kernel", "choosing the integer kernel", known is not None) as on_share:
            if known is not None:
                return KernelChoice(known["name"], tuple(known["ratios"]))
            folder, threads = work.scratch("kernels"), self.provider.threads
            found = fastest_kernel(self.bundle, self.graph, self.plan, ranges, folder, self.keep, threads, on_share)
        work.remember({"what": "kernel"}, asdict(found))
        return found

    def _fp32_decisions(self, work: Work) -> None:
        kept = work.get({"what": "decisions"}) or {}
        self.decisions.remember(kept)
        words = "deciding in fp32"
        with self._stage("fp32", words, bool(kept)) as on_share:
            for number, preset in enumerate(self.presets):
                self.decisions.of_fp32(preset, _part_of(on_share, number, len(self.presets)))
        work.put({"what": "decisions"}, self.decisions.known())

    def _most_sensitive(self, work: Work) -> list[str]:
        """Layers that may be converted, the one whose conversion costs most first."""
        if not self.sensitivity:
            known = work.recall({"what": "sensitivity"}) or {}
            if self._costs["sensitivity"] == 0.0:  # of 16 bits it is measured only where an attempt has failed
                self._costs["sensitivity"] = len(self.layers) * (self._costs["attempt"] / 50 + 0.2)
                self._meter.expect(self._costs["sensitivity"])
            with self._stage("sensitivity", "measuring the sensitivity of each layer") as on_share:

                def remember(name: str, error: float, share: float) -> None:
                    known[name] = error
                    work.remember({"what": "sensitivity"}, known)
                    on_share(share)

                self.sensitivity = measure_sensitivity(
                    self.bundle,
                    self.graph,
                    self.settings.precision,
                    self.settings.target,
                    self.ranges,
                    self.samples,
                    work.scratch("layer"),
                    known,
                    self.provider.threads,
                    remember,
                )
        order = sorted(self.sensitivity, key=lambda name: -self.sensitivity[name])
        return [name for name in order if name not in self.keep]

    def _build(self, work: Work, keep: Collection[str]) -> Draft:
        settings = self.settings
        return build(
            self.bundle,
            settings.precision,
            settings.target,
            work.scratch("draft"),
            self.ranges,
            keep,
            provider=self.provider.provider,
            scheme=self.kernel.scheme if self.kernel else None,
        )

    def _purifier(self, draft: Draft) -> DraftPurifier:
        return DraftPurifier(self.bundle, draft, self.provider.provider, threads=self.provider.threads)

    def _attempt(self, draft: Draft) -> Attempt:
        kept = f", {len(draft.keep)} layers kept" if draft.keep else ""
        with (
            self._purifier(draft) as purifier,
            self._stage("attempt", f"deciding in {self.settings.precision}{kept}") as on_share,
        ):
            error = output_error(purifier.engine(self.graph), self.samples)
            gates = tuple(
                self.decisions.compare(purifier, preset, _part_of(on_share, number, len(self.presets)))
                for number, preset in enumerate(self.presets)
            )
        return Attempt(draft.keep, error, gates)

    def _carry(self, draft: Draft) -> None:
        """Carry certificates to the draft that is accepted: what runs here is what they are about."""
        settings, words = self.settings, f"carrying certificates to {self.settings.precision}"
        if not draft.native:
            raise ConfigError(
                f"{settings.precision} is judged by a twin here, and a certificate would be about the twin; quantize "
                "where the variant itself runs",
                code="E-carry-target",
            )
        with self._purifier(draft) as variant, self._stage("carry", words) as on_share:
            self.carried = carry_to(
                variant, self.fp32, self.counted, settings.pairs, settings.seed, settings.redraws, on_share
            )

    def _speeds(self, draft: Draft) -> tuple[Speed, ...]:
        """How fast the draft is here; nothing if it is for another device."""
        if not draft.native or self.settings.target != self.provider.provider:
            return ()
        with self._purifier(draft) as purifier, self._stage("speed", "timing") as on_share:
            return compare_speed(self.fp32, purifier, self.plan, SPEED_BATCHES, on_progress=on_share)

    def _slow(self, speeds: Sequence[Speed]) -> list[str]:
        least = self.settings.limits.speed
        return [
            f"a step call at batch {s.batch} takes {number(s.variant_ms)} ms in {self.settings.precision} and "
            f"{number(s.fp32_ms)} ms in fp32: it is not faster on this device ({s.ratio:.2f} x, more than "
            f"{least:g} x is asked for); for another device give --for"
            for s in speeds
            if s.ratio <= least
        ]


def _part_of(on_share: OnShare, number: int, of: int) -> OnShare:
    """Of one of several equal parts, in the share of the whole."""
    return lambda share: on_share((number + share) / of)


def _split(parts: Mapping[str, Data], seed: int) -> tuple[Float32, dict[str, Data]]:
    """Images to calibrate with (of each part), and the others, which judge."""
    calibration, rest = [], {}
    for name, part in parts.items():
        chosen = part.draw(min(CALIBRATION_IMAGES // len(parts), max(1, len(part) // 4)), seed)
        calibration.append(part.images[chosen])
        rest[name] = part.pick(np.setdiff1d(np.arange(len(part)), chosen))
    return np.concatenate(calibration), rest
