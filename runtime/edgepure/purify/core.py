"""What every call of a purifier stands on: a bundle that is open on an engine, its presets and its plans."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from ..bundle.bundle import Bundle
from ..engines.base import Engine, Stepper
from ..engines.kinds import check_variant
from ..errors import ConfigError
from ..methods.presets import Preset, VoteSpec
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from ..validation import expect
from .arguments import check_counts, checked_votes
from .graphs import OpenGraphs, Opens, open_from_bundle
from .inflight import Counters
from .monitor import Monitor

Self = TypeVar("Self", bound="OpenBundle")


class OpenBundle:
    """A bundle on an engine: what can be asked of it, opened at first use and closed together."""

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        *,
        precision: str = "fp32",
        threads: int | None = None,
        slots: int = 8,
        opens: Opens = open_from_bundle,
    ) -> None:
        """The arguments are those of `load`. ``opens`` opens the engines: somebody else's, or of other graphs."""
        check_counts(threads, slots)
        expect(bundle=(bundle, Bundle), provider=(provider, str), precision=(precision, str))
        self.bundle = bundle
        self.provider = provider
        self.precision = precision
        check_variant(bundle.manifest, precision, provider)  # a variant that is not there is an error now
        self.slots = slots
        self.graphs = OpenGraphs(bundle, provider, precision, threads, slots, opens)
        self.image_shape, self.classes = self.graphs.image_shape, self.graphs.classes
        self.planner, self.turns = self.graphs.planner, self.graphs.turns
        self.schedule: NoiseSchedule = self.planner.schedule
        self.counters = Counters()
        # a provider that is not active is an error now, not at the first image
        self.engine("classifier" if self.classes else "step")
        if precision != "fp32":
            self.engine("step")  # nor is a precision that it cannot run

    # ---- what can be asked --------------------------------------------------------------------------------------

    @property
    def presets(self) -> Mapping[str, Preset]:
        """The presets of the bundle by name."""
        return self.bundle.manifest.presets

    def preset(self, preset: str | Preset | Mapping[str, Any] | None = None, votes: int | None = None) -> Preset:
        """A preset by name, from plain data, or the bundle's default; ``votes`` overrides its number of votes.

        Raises:
            ConfigError: no preset of that name, or parameters out of range.
        """
        if preset is None:
            preset = self.bundle.manifest.default_preset
        if isinstance(preset, str):
            chosen = self.bundle.manifest.preset(preset)
        else:
            chosen = preset if isinstance(preset, Preset) else Preset.parse(preset)
        if votes is not None:
            vote = VoteSpec(count=checked_votes(votes), rule=chosen.votes.rule)
            chosen = chosen.model_copy(update={"votes": vote})
        return chosen

    def plan(self, preset: str | Preset | Mapping[str, Any] | None = None, score_norm: float | None = None) -> Plan:
        """The rows that a preset runs; with SSNI, for an image with that score norm. Costs no UNet call."""
        return self.planner.plan(self.preset(preset), score_norm)

    def monitor(self, flag_rate: float = 0.01, *, probe: bool = False) -> Monitor:
        """A monitor of score norms with a stated false-positive rate; give it to `classify`, and keep it to count.

        Args:
            flag_rate: at most this share of images like those of the calibration is flagged, in (0, 1).
            probe: watch presets without SSNI too, at the UNet calls of the calibrated probe for every image.

        Raises:
            ConfigError: the bundle is not calibrated for this precision, or the rate is out of reach.
        """
        calibration = self.bundle.manifest.calibration
        if calibration is None:
            raise ConfigError(
                "this bundle is not calibrated, so there are no clean score norms to compare with; run `edgepure "
                "calibrate` on it",
                code="E-calibration-missing",
            )
        if self.precision not in calibration.precisions:
            raise ConfigError(
                f"this bundle was calibrated in {', '.join(calibration.precisions)}, but runs in {self.precision}; run "
                f"`edgepure calibrate` with --precision {self.precision}, or load it with that of the calibration",
                code="E-calibration-precision",
            )
        return Monitor(calibration, flag_rate, probe=probe, precision=self.precision)

    # ---- engines ------------------------------------------------------------------------------------------------

    def engine(self, graph: str) -> Engine:
        """The engine of one graph, opened at first use."""
        expect(graph=(graph, str))
        return self.graphs.engine(graph)

    def stepper(self, graph: str) -> Stepper:
        """The bank of slots of a step graph, opened at first use."""
        expect(graph=(graph, str))
        return self.graphs.stepper(graph)

    def close(self) -> None:
        """Give the memory of the engines back, when the calls of other threads are done. May be called again.

        The next call opens the engines anew. In a forked process nothing is done: the engines are the parent's.
        """
        self.graphs.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Purifier cannot be pickled: give the other process the bundle's path, and load it there")

    def __repr__(self) -> str:
        return (
            f"Purifier({self.bundle.manifest.name!r}, provider={self.provider!r}, precision={self.precision!r}, "
            f"image_shape={self.image_shape})"
        )
