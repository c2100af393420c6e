"""The stages of one quantization: what is recorded and measured, and the search for layers that have to stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.manifest import GraphName
from edgepure.engines.kinds import check_kernels
from edgepure.errors import ConfigError
from edgepure.images.dataset import LabelledImages
from edgepure.methods.presets import Preset
from edgepure.purify.purifier import Purifier
from edgepure_export.graphs.precision import HALF_TYPES, matching
from edgepure_export.graphs.qdq import Range, Tap, scheme_of, schemes_of

from ..data_checks import check_images
from .candidate import Candidate, CandidatePurifier, build, layers
from .gate import Decisions
from .kernels import KernelChoice, fastest_kernel
from .ranges import measure_ranges
from .recording import Samples, record
from .request import Attempt, Request
from .sensitivity import measure_sensitivity, output_error
from .speed import Speed, compare_speed
from .work import Work, digest

#: Called with (what is being done, share of that which is done).
OnProgress = Callable[[str, float], None]
#: Images whose trajectories are recorded, and at least so many calls of the step graph.
CALIBRATION_IMAGES, CALIBRATION_CALLS = 16, 128
#: How many of the most sensitive layers stay in higher precision, one attempt after the other.
ATTEMPTS = (1, 2, 4, 8, 16)


class Run:
    """One quantization: what is fixed from the start, and the stages."""

    def __init__(
        self,
        bundle: Bundle,
        request: Request,
        fp32: Purifier,
        clean: LabelledImages,
        attacked: LabelledImages | None,
        report: OnProgress,
    ) -> None:
        self.bundle, self.request, self.fp32, self.report = bundle, request, fp32, report
        names = request.presets or (bundle.manifest.default_preset,)
        if request.precision not in HALF_TYPES:
            scheme_of(request.precision, request.target)  # one that there is not is an error now
        if request.precision == "fp8":
            check_kernels(request.provider, "fp8")  # a twin of it holds float8 values, too
        self.presets: dict[str, Preset] = {name: fp32.preset(name) for name in names}
        plans = [fp32.plan(preset) for preset in self.presets.values()]
        self.plan = plans[0]
        self.graph: GraphName = "step_learned" if any(p.learned_variance for p in plans) else "step"
        every = layers(bundle, self.graph, request.precision)
        if not every:
            raise ConfigError(f"the network has no operators that {request.precision} could make smaller")
        self.keep = matching(every, request.keep) if request.keep else set()
        parts = {"clean": clean} if attacked is None else {"clean": clean, "attacked": attacked}
        for name, part in parts.items():
            check_images(part, f"the {name} images", 4)
        self.calibration, self.parts = _split(parts, request.seed)
        self.decisions = Decisions(fp32, self.parts, self.presets, request.redraws, request.seed, request.limits)
        self.samples: Samples
        self.ranges: dict[Tap, Range] | None = None
        #: Of int8 on this CPU.
        self.kernel: KernelChoice | None = None
        self.sensitivity: dict[str, float] = {}

    def key(self) -> dict[str, Any]:
        """What the stored results depend on."""
        return {
            "graphs": {name: e.sha256 for name, e in self.bundle.manifest.files.items() if "/" not in name},
            "presets": {name: preset.model_dump(mode="json") for name, preset in self.presets.items()},
            "data": {name: part.sha256 for name, part in self.parts.items()},
            "calibration": digest(self.calibration.tobytes().hex()),
            "request": asdict(self.request),
            "version": 2,
        }

    def measure(self, store: Work) -> None:
        """Recorded calls, and where they are needed the ranges of the activations and the fastest kernel."""
        request, precision = self.request, self.request.precision
        self.samples = self._samples(store)
        if precision in HALF_TYPES:
            return
        known = store.get("ranges")
        if known is None:
            found = measure_ranges(
                self.bundle.graph_path(self.graph),
                scheme_of(precision, request.target),
                self.samples,
                store.folder,
                request.threads,
                lambda share: self.report("measuring the ranges of activations", share),
            )
            known = [[*tap, *bounds] for tap, bounds in found.items()]
            store.put("ranges", known)
        self.ranges = {(name, side): (low, high) for name, side, low, high in known}
        if request.target == request.provider and len(schemes_of(precision, request.target)) > 1:
            self.kernel = self._kernel(store, self.ranges)

    def _kernel(self, store: Work, ranges: Mapping[Tap, Range]) -> KernelChoice:
        known = store.get("kernel")
        if known is not None:
            return KernelChoice(known["name"], tuple(known["ratios"]))
        found = fastest_kernel(
            self.bundle, self.graph, self.plan, ranges, store.folder / "kernels", self.keep, self.request.threads,
            lambda share: self.report("choosing the integer kernel", share),
        )  # fmt: skip
        store.put("kernel", asdict(found))
        return found

    def _most_sensitive(self, store: Work) -> list[str]:
        """Layers that may be converted, the one whose conversion costs most first."""
        known = store.get("sensitivity") or {}

        def remember(name: str, error: float, share: float) -> None:
            known[name] = error
            store.put("sensitivity", known)
            self.report("measuring the sensitivity of each layer", share)

        if not self.sensitivity:
            self.sensitivity = measure_sensitivity(
                self.bundle, self.graph, self.request.precision, self.request.target, self.ranges,
                self.samples, store.folder / "layer", known, self.request.threads, remember,
            )  # fmt: skip
        order = sorted(self.sensitivity, key=lambda name: -self.sensitivity[name])
        return [name for name in order if name not in self.keep]

    def _samples(self, store: Work) -> Samples:
        known = store.samples(self.graph)
        if known is None:
            known = record(
                self.fp32,
                list(self.presets.values()),
                self.calibration,
                CALIBRATION_CALLS,
                self.request.seed + 100,
                self.graph,
                lambda share: self.report("recording trajectories", share),
            )
            store.put_samples(self.graph, known)
        return known

    def search(self, store: Work) -> tuple[Candidate, list[Attempt], tuple[Speed, ...], list[str]]:
        """Keep ever more of the most sensitive layers until the gate holds."""
        candidate = self._build(store, self.keep)
        speeds = self._speeds(candidate)
        slow = self._slow(speeds)
        if slow:  # with more layers in higher precision it would be slower still
            return candidate, [], speeds, slow
        self.decisions.remember(store.get("decisions") or {})
        for preset in self.presets:
            self.decisions.of_fp32(preset, self.report)
        store.put("decisions", self.decisions.known())
        if self.ranges is not None:
            self._most_sensitive(store)
        attempts = [self._attempt(candidate)]
        for more in ATTEMPTS:
            if not attempts[-1].reasons:
                break
            order = self._most_sensitive(store)
            if more < len(order):
                candidate = self._build(store, self.keep | set(order[:more]))
                attempts.append(self._attempt(candidate))
        if len(attempts) > 1:
            speeds = self._speeds(candidate)
        return candidate, attempts, speeds, [*attempts[-1].reasons, *self._slow(speeds)]

    def _build(self, store: Work, keep: Collection[str]) -> Candidate:
        request = self.request
        return build(
            self.bundle, request.precision, request.target, store.folder / "candidate", self.ranges, keep,
            provider=request.provider, scheme=self.kernel.scheme if self.kernel else None,
        )  # fmt: skip

    def _purifier(self, candidate: Candidate) -> CandidatePurifier:
        return CandidatePurifier(self.bundle, candidate, self.request.provider, threads=self.request.threads)

    def _attempt(self, candidate: Candidate) -> Attempt:
        with self._purifier(candidate) as purifier:
            error = output_error(purifier.engine(self.graph), self.samples)
            gates = tuple(self.decisions.compare(purifier, preset, self.report) for preset in self.presets)
        return Attempt(candidate.keep, error, gates)

    def _speeds(self, candidate: Candidate) -> tuple[Speed, ...]:
        """How fast the candidate is here; nothing if it is for another device."""
        if not candidate.native or self.request.target != self.request.provider:
            return ()
        with self._purifier(candidate) as purifier:
            return compare_speed(
                self.fp32, purifier, self.plan, (1, 8), on_progress=lambda share: self.report("timing", share)
            )

    def _slow(self, speeds: Sequence[Speed]) -> list[str]:
        return [
            f"a step call at batch {s.batch} takes {s.variant_ms:.3g} ms in {self.request.precision} and "
            f"{s.fp32_ms:.3g} ms in fp32: it is not faster on this device ({s.ratio:.2f} x, more than "
            f"{self.request.limits.speed:g} x is asked for); for another device give --for"
            for s in speeds
            if s.ratio <= self.request.limits.speed
        ]


def _split(
    parts: Mapping[str, LabelledImages], seed: int
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], dict[str, LabelledImages]]:
    """Images to calibrate with (of each part), and the others, which judge."""
    calibration, rest = [], {}
    for name, part in parts.items():
        count = min(CALIBRATION_IMAGES // len(parts), max(1, len(part) // 4))
        chosen = part.take(count, seed)
        taken = set(chosen.names)
        calibration.append(chosen.images)
        rest[name] = part.pick([i for i, name in enumerate(part.names) if name not in taken])
    return np.concatenate(calibration), rest
