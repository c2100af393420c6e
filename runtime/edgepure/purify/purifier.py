"""Purify and classify images with a bundle: the object that users hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..engines.base import Engine, Stepper
from ..engines.kinds import check_variant
from ..engines.open import open_engine
from ..errors import ConfigError, NotFiniteError
from ..images.load import load_images
from ..methods import EpsSpec
from ..methods.planner import Planner
from ..methods.presets import MaskSpec, Preset, VoteSpec
from ..rows.noise import NoiseSource, noise_source
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from .graphs import OpenGraphs
from .inflight import Counters, InFlight, Job
from .monitor import Monitor
from .request import Progress, Request, check_images
from .results import Failure, Results

Float32 = NDArray[np.float32]


def load(
    path: str | PathLike[str],
    provider: str = "cpu",
    *,
    precision: str = "fp32",
    threads: int | None = None,
    slots: int = 8,
    verify: bool = True,
) -> Purifier:
    """Open a bundle on an engine.

    Args:
        path: the bundle's directory.
        provider: ``cpu`` (ONNX Runtime), ``openvino`` (on the CPU too), ``cuda``, ``tensorrt`` or ``tensorrt-rtx``. One
            that is not active is an error, never a fallback. TensorRT needs the engines that `edgepure build` makes.
        precision: ``fp32``, or a variant that `edgepure quantize` put into the bundle: ``fp16``, ``bf16``, ``int8``,
            ``fp8``. Graphs that the variant does not have are the fp32 ones.
        threads: CPU threads of one call; None: one per core.
        slots: images that share a UNet call at most.
        verify: check the SHA-256 of every file of the bundle (recommended; false only skips the hashes).

    Raises:
        BundleError: the bundle is missing, damaged, unsafe or of a newer format, or has no such variant.
        ProviderError: the provider is unknown or not active, or cannot run this precision.
    """
    return Purifier(Bundle.open(path, verify=verify), provider, precision=precision, threads=threads, slots=slots)


class Purifier:
    """A bundle on an engine. Use `load` to make one, and ``with`` to give its memory back.

    Its methods may be called from several threads; they run one after another, so a long call keeps the others waiting:
    `edgepure.Service` lets the images of many callers share the UNet calls. It belongs to the process that opened it: a
    worker process (also a forked one) opens its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        *,
        precision: str = "fp32",
        threads: int | None = None,
        slots: int = 8,
    ) -> None:
        if slots < 1:
            raise ConfigError(f"slots {slots} must be at least 1: it is the number of images that share a UNet call")
        self.bundle = bundle
        self.provider = provider
        self.precision = precision
        check_variant(bundle.manifest, precision, provider)  # a variant that is not there is an error now
        self.slots = slots
        manifest = bundle.manifest
        self.image_shape = (manifest.image.channels, manifest.image.height, manifest.image.width)
        self.classes = tuple(manifest.classes)
        self.schedule: NoiseSchedule = manifest.schedule.build()
        self.planner = Planner(self.schedule, int(np.prod(self.image_shape)))
        self._threads = threads
        self._graphs = OpenGraphs(self._open, slots)
        self.turns = self._graphs.turns
        self.counters = Counters()
        self.engine("classifier")  # a provider that is not active is an error now, not at the first image
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
            if preset not in self.presets:
                raise ConfigError(f"no preset {preset!r} in this bundle; it has {', '.join(sorted(self.presets))}")
            chosen = self.presets[preset]
        else:
            chosen = preset if isinstance(preset, Preset) else Preset.parse(dict(preset))
        if votes is not None:
            if votes < 1:
                raise ConfigError(f"votes {votes} must be at least 1")
            chosen = chosen.model_copy(update={"votes": VoteSpec(count=votes, rule=chosen.votes.rule)})
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
                "calibrate` on it"
            )
        if calibration.precision != self.precision:
            raise ConfigError(
                f"this bundle was calibrated in {calibration.precision} and runs in {self.precision} here; run "
                f"`edgepure calibrate` with --precision {self.precision}, or load it with that of the calibration"
            )
        return Monitor(calibration, flag_rate, probe=probe)

    # ---- what can be done ---------------------------------------------------------------------------------------

    def classify(
        self,
        images: Any,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        noise: NoiseSource | int | None = None,
        resize: bool = False,
        on_error: str = "raise",
        on_progress: Progress | None = None,
        monitor: Monitor | None = None,
    ) -> Results:
        """Purify images, then classify them.

        Args:
            images: uint8 HWC, float CHW in [0, 1], a batch of either, PIL images, paths, the bytes of an image file, or
                a list of any of these.
            preset: name, `Preset` or plain data; None: the bundle's default.
            votes: independent purifications of each image; None: as the preset says.
            noise: None draws fresh secret noise (the default, and the only safe choice for untrusted requests); an
                int is a seed; or a `NoiseSource`. Image i of this call is image i of the stream.
            resize: resize images of another size instead of refusing them.
            on_error: ``raise``, or ``collect``: do the good images and list the bad ones in ``results.failures``.
            on_progress: called with (images done, images in all).
            monitor: flags results whose score norm is off-distribution, and counts them; see `monitor`.

        Raises:
            ImageError: an image has the wrong size, channels, dtype or range, or cannot be read.
            ConfigError: the preset is unknown or its parameters are out of range, or the monitor cannot watch it.
        """
        loaded = load_images(images, self.bundle.manifest.image, resize=resize, on_error=on_error)
        results = self.run(
            loaded.images,
            preset,
            votes=votes,
            noise=noise,
            names=loaded.names,
            ids=loaded.indices,
            on_progress=on_progress,
            monitor=monitor,
        )
        return Results(results, (Failure(f.name, f.reason) for f in loaded.failures))

    def purify(
        self,
        images: Any,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        noise: NoiseSource | int | None = None,
        resize: bool = False,
        on_error: str = "raise",
        on_progress: Progress | None = None,
    ) -> Results:
        """Purify images once each; ``result.image`` is the purified image ``[C, H, W]`` in [0, 1].

        The arguments and errors are those of `classify`; the purified image is classified as well.
        """
        return self.classify(
            images, preset, votes=1, noise=noise, resize=resize, on_error=on_error, on_progress=on_progress
        )

    def logits(self, images: Float32) -> Float32:
        """The plain classifier, without purification: ``[B, C, H, W]`` float32 in [0, 1] -> ``[B, N]`` float32.

        Raises:
            ImageError: the batch has another shape or dtype.
        """
        parts = [images[i : i + 64] for i in range(0, len(images), 64)] or [images]
        return np.concatenate(
            [
                self._graphs.run("classifier", {"image": part}, {"logits": (len(part), len(self.classes))})["logits"]
                for part in parts
            ]
        )

    def attention(self, images: Float32, mask: MaskSpec) -> dict[str, Float32]:
        """Logits ``[B, N]``, mask ``[B, 1, H, W]`` (0 or 1) and fused attention map ``[B, 1, H, W]`` of images
        ``[B, C, H, W]`` float32 in [0, 1].

        Raises:
            ConfigError: the bundle has no mask graph.
            ImageError: the batch has another shape or dtype.
        """
        if "mask" not in self.bundle.manifest.graphs:
            raise ConfigError("this bundle has no mask graph; export the classifier with blocks to tap")
        full = np.ones(len(images), np.float32)
        threshold = mask.threshold if mask.threshold is not None else 0.0
        feeds = {
            "image": images,
            "threshold": full * np.float32(threshold),
            "area": full * np.float32(mask.area_input(self.image_shape[1] * self.image_shape[2])),
            "rule": full * np.float32(mask.rule == "softmax"),
        }
        map_shape = (len(images), 1, *self.image_shape[1:])
        shapes = {"logits": (len(images), len(self.classes)), "mask": map_shape, "attention": map_shape}
        return self._graphs.run("mask", feeds, shapes)

    def score_norms(
        self,
        images: Float32,
        preset: str | Preset | Mapping[str, Any] | EpsSpec,
        noise: NoiseSource | int | None = None,
        *,
        ids: Sequence[int] | None = None,
    ) -> NDArray[np.float64]:
        """Score norms ``[B]`` of images ``[B, C, H, W]`` in [0, 1] with a probe, or with that of an SSNI preset.

        ``ids``: which images of the noise stream they are; None: 0, 1, 2, ...

        Raises:
            ConfigError: the preset has no SSNI, or the probe does not fit the schedule.
        """
        if isinstance(preset, EpsSpec):
            probe: Plan | None = self.planner.rows(preset)
        else:
            probe = self.planner.probe(self.preset(preset))
        if probe is None:
            raise ConfigError("the preset has no SSNI, so it has no probe to measure score norms with")
        check_images(images, self.image_shape)
        source, norms = noise_source(noise), np.zeros(len(images))

        def done(job: Job, x: Float32) -> None:
            norms[job.tag] = np.linalg.norm(x.astype(np.float64))

        jobs = (
            Job(
                probe,
                source.for_image(probe, i if ids is None else ids[i], 0, None, self.image_shape, probe=True),
                2.0 * image - 1.0,
                tag=i,
            )
            for i, image in enumerate(images)
        )
        with self.turns.alone():
            InFlight(self.stepper("step")).run(jobs, done)
        return norms

    def run(
        self,
        images: Float32,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        noise: NoiseSource | int | None = None,
        names: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
        on_progress: Progress | None = None,
        on_rows: Callable[[int], None] | None = None,
        monitor: Monitor | None = None,
    ) -> Results:
        """`classify` for images that are already ``[B, C, H, W]`` float32 in [0, 1].

        ``names``, ``ids``: of each image in the results and in the noise stream; None: 0, 1, 2, ... ``on_rows`` is
        called after every UNet call with the number of rows that it executed: a finer progress. What it or
        ``on_progress`` raises ends the call and is raised here; the next call is not affected.

        Raises:
            ImageError: the batch has another shape or dtype, or NaN.
            ConfigError: as `classify`.
            NotFiniteError: the model gave NaN or infinite values.
        """
        chosen = self.preset(preset, votes)
        with self.turns.alone():
            sources = [noise_source(noise)] * len(images)
            request = Request(self, images, chosen, sources, names, ids, on_progress, monitor)
            try:
                return request.results(on_rows)
            except NotFiniteError as error:
                raise self.explained(error, chosen) from None

    def explained(self, error: NotFiniteError, preset: Preset) -> NotFiniteError:
        """The error with the preset's name, and with what to do about the variant."""
        return NotFiniteError(f"{self._called(preset)}{error}{self._advice()}")

    def _called(self, preset: Preset) -> str:
        """``preset NAME: `` of a preset of the bundle, whatever its votes."""
        votes = {"votes": preset.votes}
        same = [name for name, mine in self.presets.items() if mine.model_copy(update=votes) == preset]
        return f"preset {same[0]}: " if same else ""

    def _advice(self) -> str:
        """What to do about values that are not finite, where it is the variant's doing."""
        if self.precision == "fp32":
            return ""
        return (
            f". This is the {self.precision} variant: use precision fp32, or make the variant anew with the layers "
            "that overflow kept in fp32 (`edgepure quantize --keep LAYER`)"
        )

    # ---- engines ------------------------------------------------------------------------------------------------

    def _open(self, graph: str) -> Engine:
        return open_engine(self.bundle, graph, self.provider, precision=self.precision, threads=self._threads)

    def engine(self, graph: str) -> Engine:
        """The engine of one graph, opened at first use."""
        return self._graphs.engine(graph)

    def stepper(self, graph: str) -> Stepper:
        """The bank of slots of a step graph, opened at first use."""
        return self._graphs.stepper(graph)

    def close(self) -> None:
        """Give the memory of the engines back, when the calls of other threads are done. May be called again.

        The next call opens the engines anew. In a forked process nothing is done: the engines are the parent's.
        """
        self._graphs.close()

    def __enter__(self) -> Purifier:
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
