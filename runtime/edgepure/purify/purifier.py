"""Purify and classify images with a bundle: the object that users hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..engines.base import Engine, Stepper
from ..engines.kinds import check_variant
from ..errors import ConfigError, NotFiniteError
from ..images.frames import Size, load_frame
from ..images.load import Order, Resize, check_options, load_images
from ..methods import EpsSpec
from ..methods.presets import MaskSpec, Preset, VoteSpec
from ..rows.noise import NoiseSource, noise_source
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from ..types import Float32, Progress
from ..validation import expect
from .answered_frames import answer_frames
from .certify import Certificate, Certifier, CertifySettings
from .frames import FrameRequest, FrameResult, Pad
from .graphs import OpenGraphs, Opens, open_from_bundle
from .heads import Head, Images, Labels, P, as_they_are
from .inflight import Counters, run_images
from .masks import caller_masks
from .monitor import Monitor
from .request import Request, check_ids, check_images
from .results import Failure, Purified, Result, Results
from .tasks import Task
from .track import Track

#: More threads than any processor has cores only take memory; so do more slots.
MOST_THREADS, MOST_SLOTS = 512, 4096


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


def check_counts(threads: object, slots: object) -> None:
    """Raise ConfigError unless these are numbers of threads (or None) and of slots that a machine can have."""
    for name, value, most, what, code in (
        ("threads", threads, MOST_THREADS, "it is the number of CPU threads of one call, or None", "E-config-threads"),
        ("slots", slots, MOST_SLOTS, "it is the number of images that share a UNet call", "E-config-slots"),
    ):
        if value is None and name == "threads":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigError(f"{name} is {value!r:.40}, expected 1 to {most}: {what}", code=code)


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
            if preset not in self.presets:
                known = ", ".join(sorted(self.presets))
                raise ConfigError(f"no preset {preset!r} in this bundle; it has {known}", code="E-preset-unknown")
            chosen = self.presets[preset]
        else:
            chosen = preset if isinstance(preset, Preset) else Preset.parse(preset)
        if votes is not None:
            if isinstance(votes, bool) or not isinstance(votes, int | np.integer) or not 1 <= votes <= 1000:
                raise ConfigError(f"votes is {votes!r:.40}, expected a number from 1 to 1000", code="E-config-votes")
            votes = int(votes)
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

    # ---- what can be done ---------------------------------------------------------------------------------------

    def classify(
        self,
        images: Any,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        noise: NoiseSource | int | None = None,
        resize: Resize = False,
        order: Order = "rgb",
        on_error: str = "raise",
        on_progress: Progress | None = None,
        monitor: Monitor | None = None,
        mask: Any = None,
    ) -> Results[Result]:
        """Purify images, then classify them.

        Args:
            images: uint8 HWC, float CHW in [0, 1], a batch of either, PIL images, paths, the bytes of an image file, or
                a list of any of these.
            preset: name, `Preset` or plain data; None: the bundle's default.
            votes: independent purifications of each image; None: as the preset says.
            noise: None draws fresh secret noise (the default, and the only safe choice for untrusted requests); an
                int is a seed; or a `NoiseSource`. Image i of this call is image i of the stream.
            resize: what is done with images of another size: False refuses them; ``squash`` (True) stretches, ``crop``
                takes the middle, ``pad`` puts black around.
            order: of the colours in arrays: ``rgb``, or ``bgr`` as OpenCV has them.
            on_error: ``raise``, or ``collect``: do the good images and list the bad ones in ``results.failures``.
            on_progress: called with the share of the images that is done, and words.
            monitor: flags results whose score norm is off-distribution, and counts them; see `monitor`.
            mask: for a preset with a mask, in place of the attention mask: ``[H, W]`` for all images, ``[B, H, W]`` or
                ``[B, 1, H, W]``, bool or 0 and 1; 1 is where the strong noise goes.

        Raises:
            ImageError: an image has the wrong size, channels, dtype or range, or cannot be read, or the mask is none.
            ConfigError: the preset is unknown or its parameters are out of range, the monitor cannot watch it, the
                bundle has no classifier, or a mask is missing or of no use.
        """
        return self._load_and_run(
            Labels(self.graphs), images, self.preset(preset, votes), noise, mask, (resize, order, on_error),
            on_progress, monitor,
        )  # fmt: skip

    def purify(
        self,
        images: Any,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        noise: NoiseSource | int | None = None,
        resize: Resize = False,
        order: Order = "rgb",
        on_error: str = "raise",
        on_progress: Progress | None = None,
        mask: Any = None,
    ) -> Results[Purified]:
        """Purify images once each; ``result.image`` is the purified image ``[C, H, W]`` in [0, 1].

        The arguments and errors are those of `classify`, but that no classifier is needed. With one, each result is a
        `Result`: the purified image is classified as well.
        """
        return self._load_and_run(
            self.own_head(), images, self.preset(preset, 1), noise, mask, (resize, order, on_error), on_progress, None
        )

    def purify_frame(
        self,
        frame: Any,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        mask: NDArray[Any] | None = None,
        noise: NoiseSource | int | None = None,
        number: int = 0,
        size: Size = None,
        pad: Pad = "no",
        whole: bool = False,
        order: Order = "rgb",
        track: Track | None = None,
        on_progress: Progress | None = None,
    ) -> FrameResult:
        """Purify one frame of any size by overlapping tiles of the network's size.

        All tiles execute a row together and are blended to the frame before the next (docs/tasks.md, "Frames").
        `Preset.tiles` says how much they overlap, and whether masks and score norms are those of tiles or of the frame.
        The frame is not classified, and votes do not count. One of the network's own size is purified as by `purify`.

        Args:
            frame: one image as `classify` takes it, of any size.
            preset: as for `classify`.
            mask: ``[H, W]`` of True and False, the caller's in place of the preset's; the size of the frame after
                ``size``.
            noise: as for `classify`; it belongs to the pixels of the frame.
            number: which image of the noise stream the frame is.
            size: length of the shorter side to which the frame is resized before (the aspect stays), or
                ``(height, width)`` (it is squashed). None: it stays as it is. The result has this size.
            pad: what is done with a side that is shorter than the network's: ``no`` refuses it, ``reflect`` mirrors
                the frame, ``black`` puts zeros around. The result is cut to the frame.
            whole: run the network on the whole frame instead, where the bundle was exported for any size and the
                provider can (docs/tasks.md, "Whole frames").
            order: of the colours in arrays.
            track: holds masks and noise levels of a frame for those of a video that follow it.
            on_progress: called with the share of the rows that is done, and words.

        Raises:
            ImageError: the frame cannot be used, or is too small.
            ConfigError: as `classify`, or the mask does not fit the frame, or the bundle has no graph for ``whole``.
            ProviderError: the provider computes at fixed sizes, and ``whole`` was asked for.
            NotFiniteError: the model gave NaN or infinite values.
        """
        chosen = self.preset(preset)
        name, pixels = load_frame(frame, self.image_shape[0], size=size, order=order)
        with self.turns.alone():
            request = FrameRequest(
                self.graphs,
                pixels,
                chosen,
                noise_source(noise),
                image=number,
                mask=mask,
                pad=pad,
                whole=whole,
                on_progress=on_progress,
                track=track,
            )
            try:
                result = request.result(name)
            except NotFiniteError as error:
                raise self.explained(error, chosen) from None
            self.counters = request.counters
            return result

    def predict(
        self,
        images: Any,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        noise: NoiseSource | int | None = None,
        resize: Resize = False,
        order: Order = "rgb",
        on_error: str = "raise",
        on_progress: Progress | None = None,
        mask: Any = None,
        purify: bool = True,
    ) -> Results[Any]:
        """Purify images, then do what the bundle is for: each result is a `Detection`, a `Segmentation`, an
        `Embedding`, or with a classifier a `Result`.

        A task may take frames, larger than the network: they are purified by tiles, as by `purify_frame`. Votes decide
        together: boxes are fused, of label maps the mean softmax or the majority of each
        pixel counts, vectors are averaged. Coordinates are those of the images that the task sees.

        Args:
            purify: False shows the images as they are to the task, without any defence: to compare.
            images, preset, votes, noise, resize, order, on_error, on_progress, mask: as for `classify`.

        Raises:
            ImageError: as `classify`.
            ConfigError: as `classify`, or the bundle has neither task nor classifier.
        """
        expect(purify=(purify, bool), on_progress=(on_progress, Callable, None))
        head = self.task_head()
        reading, chosen = (resize, order, on_error), self.preset(preset, votes)
        if purify:
            return self._load_and_run(head, images, chosen, noise, mask, reading, on_progress, None)
        image = head.image(self.bundle.manifest)
        loaded = load_images(images, image, resize=resize, order=order, on_error=on_error)
        plain = as_they_are(head, loaded.images, loaded.names, chosen)
        return Results(plain, (Failure(f.name, f.reason) for f in loaded.failures))

    def task_head(self) -> Head[Any]:
        """What the bundle is for: labels, or the answer of its task.

        Raises:
            ConfigError: it has neither classifier nor task (``E-no-task``).
        """
        return Labels(self.graphs) if self.classes else Task(self.graphs)

    def own_head(self) -> Head[Any]:
        """What `purify` makes of images: labels, if there is a classifier."""
        return Labels(self.graphs) if self.classes else Images()

    def _load_and_run(
        self,
        head: Head[P],
        images: Any,
        preset: Preset,
        noise: NoiseSource | int | None,
        mask: Any,
        reading: tuple[Resize, Order, str],
        on_progress: Progress | None,
        monitor: Monitor | None,
    ) -> Results[P]:
        resize, order, on_error = reading
        image = head.image(self.bundle.manifest)
        loaded = load_images(images, image, resize=resize, order=order, on_error=on_error)
        masks = None
        if mask is not None:
            masks = caller_masks(mask, len(loaded) + len(loaded.failures), image.shape[1:])[list(loaded.indices)]
        results = self.run_head(
            head,
            loaded.images,
            preset,
            noise=noise,
            names=loaded.names,
            ids=loaded.indices,
            on_progress=on_progress,
            monitor=monitor,
            masks=masks,
        )
        return Results(results, (Failure(f.name, f.reason) for f in loaded.failures))

    def stream(
        self,
        frames: Iterable[Any],
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        noise: NoiseSource | int | None = None,
        resize: Resize = False,
        order: Order = "rgb",
        monitor: Monitor | None = None,
        track: Track | None = None,
    ) -> Iterator[Any]:
        """Purify a source that need not end, and do what the bundle is for: a camera, a queue, a generator.

        Each answer is what `predict` gives; a bundle with neither classifier nor task gives a `Purified`.

        Results come in the order of the frames, each as soon as it is done. Frames are taken one at a time: nothing is
        read ahead, so the latest frame is the one that is answered. For several sources at a time use a `Service`.

        Args:
            frames: images as `classify` takes them, one each. One that cannot be used gives a `Failure` in its place.
            preset, votes, resize, order, monitor: as for `classify`.
            noise: as for `classify`; frame i is image i of the stream. None: a fresh key for every frame.
            track: holds score norm and mask of a frame for those that follow it, which saves the probe's UNet calls.

        Raises:
            ConfigError: as `classify`, now and not at the first frame.
        """
        if not isinstance(frames, Iterable):
            raise ConfigError(f"frames is {frames!r:.80}, expected a source of images", code="E-config-option")
        chosen, source = self.preset(preset, votes), None if noise is None else noise_source(noise)
        check_options(resize, order, "collect")
        self.planner.plan(chosen)
        manifest = self.bundle.manifest
        head: Head[Any] = Images() if manifest.task is None and not self.classes else self.task_head()
        head.check(chosen)
        image = head.image(manifest)

        def answers() -> Iterator[Any]:
            for number, frame in enumerate(frames):
                loaded = load_images([frame], image, resize=resize, order=order, on_error="collect")
                if loaded.failures or len(loaded) != 1:
                    reason = loaded.failures[0].reason if loaded.failures else f"it holds {len(loaded)} images"
                    yield Failure(str(number), reason)
                else:
                    yield self.run_head(
                        head,
                        loaded.images,
                        chosen,
                        noise=source,
                        names=[str(number)],
                        ids=[number],
                        monitor=monitor,
                        track=track,
                    )[0]

        return answers()

    def logits(self, images: Float32) -> Float32:
        """The plain classifier, without purification: ``[B, C, H, W]`` float32 in [0, 1] -> ``[B, N]`` float32.

        Raises:
            ConfigError: the bundle has none.
            ImageError: the batch has another shape or dtype.
        """
        check_images(images, self.image_shape)
        return self.graphs.logits(images)

    def attention(self, images: Float32, mask: MaskSpec) -> dict[str, Float32]:
        """Mask ``[B, 1, H, W]`` (0 or 1), fused attention map ``[B, 1, H, W]`` and, with a classifier, logits
        ``[B, N]`` of images ``[B, C, H, W]`` float32 in [0, 1].

        Raises:
            ConfigError: the bundle has no mask graph, or the mask is the caller's.
            ImageError: the batch has another shape or dtype.
        """
        check_images(images, self.image_shape)
        expect(mask=(mask, MaskSpec))
        return self.graphs.attention(images, mask)

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
            raise ConfigError(
                "the preset has no SSNI, so it has no probe to measure score norms with", code="E-probe-missing"
            )
        check_images(images, self.image_shape)
        check_ids(ids, len(images))
        norms = np.zeros(len(images))

        def done(image: int, x: Float32) -> None:
            norms[image] = np.linalg.norm(x.astype(np.float64))

        with self.turns.alone():
            plans = [probe] * len(images)
            run_images(self.stepper("step"), images, plans, noise_source(noise), done, ids=ids, probe=True)
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
        masks: Float32 | None = None,
        track: Track | None = None,
    ) -> Results[Result]:
        """`classify` for images that are already ``[B, C, H, W]`` float32 in [0, 1].

        ``names``, ``ids``: of each image in the results and in the noise stream; None: 0, 1, 2, ... ``on_rows`` is
        called after every UNet call with the number of rows that it executed: a finer progress. What it or
        ``on_progress`` raises ends the call and is raised here; the next call is not affected. ``masks``: ``[B, 1, H,
        W]`` float32 of 0 and 1. ``track``: of one image, as for `stream`.

        Raises:
            ImageError: the batch has another shape or dtype, or NaN.
            ConfigError: as `classify`.
            NotFiniteError: the model gave NaN or infinite values.
        """
        return self.run_head(
            Labels(self.graphs), images, self.preset(preset, votes), noise=noise, names=names, ids=ids,
            on_progress=on_progress, on_rows=on_rows, monitor=monitor, masks=masks, track=track,
        )  # fmt: skip

    def run_head(
        self,
        head: Head[P],
        images: Float32,
        preset: Preset,
        *,
        noise: NoiseSource | int | None = None,
        names: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
        on_progress: Progress | None = None,
        on_rows: Callable[[int], None] | None = None,
        monitor: Monitor | None = None,
        masks: Float32 | None = None,
        track: Track | None = None,
    ) -> Results[P]:
        """`run` with another answer than labels: what ``head`` makes of the purified images."""
        expect(
            names=(names, Sequence, None), on_progress=(on_progress, Callable, None), on_rows=(on_rows, Callable, None)
        )
        chosen, shape = preset, head.image(self.bundle.manifest).shape
        check_images(images, shape)
        check_ids(ids, len(images))
        if masks is not None:
            masks = caller_masks(masks, len(images), shape[1:])
        if monitor is not None:
            self.bundle.manifest.require_slots("a monitor")
        source = noise_source(noise)
        with self.turns.alone():
            try:
                if shape != self.image_shape:
                    results, self.counters = answer_frames(
                        self.graphs, head, images, chosen, source, names, ids, on_progress, on_rows, masks, track
                    )
                    return results
                request = Request(
                    self.graphs, images, chosen, head, [source] * len(images), names, ids, on_progress, monitor,
                    masks=masks, track=track,
                )  # fmt: skip
                results = request.results(on_rows)
            except NotFiniteError as error:
                raise self.explained(error, chosen) from None
            self.counters = request.counters
            return results

    def certify(
        self,
        images: Any,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        n: int = 10_000,
        n0: int = 100,
        alpha: float = 0.001,
        radius: float | None = None,
        noise: NoiseSource | int | None = None,
        resize: bool = False,
        on_progress: Progress | None = None,
        on_certificate: Callable[[int, Certificate], object] | None = None,
    ) -> list[Certificate]:
        """Certified L2 radii of the smoothed answer to images, on this engine and in this precision.

        The smoothed answer is the one that most purifications of an image give. Images of 8 bits and a preset that sees
        its input once (method ``smooth``) get noise on the grid of their levels: an exact certificate. See
        docs/certificates.md for what is proven, and for what is not.

        Args:
            images: as for `classify`; image i of this call is image i of the noise stream.
            preset: one whose certified sigma exists, see `Plan.certified_sigma`; its votes do not matter here.
            n: answers that are counted for each image. With ``radius``: at most.
            n0: answers that choose the class before.
            alpha: an image's certificate is wrong with this probability at most.
            radius: stop the counting of an image as soon as this radius is settled, either way.
            noise: as for `classify`.
            resize: resize images of another size; the certificate is about the resized ones.
            on_progress: called with the share of images, and words.
            on_certificate: called with (position, certificate) for every image that is done.

        Raises:
            ConfigError: the preset has no certificate, with the reason; or a number is out of range.
            ImageError: an image cannot be used.
            NotFiniteError: the model gave NaN or infinite values.
        """
        expect(on_progress=(on_progress, Callable, None), on_certificate=(on_certificate, Callable, None))
        certifier = Certifier(self.graphs, self.preset(preset), CertifySettings(n, n0, alpha, radius))
        loaded = load_images(images, self.bundle.manifest.image, resize=resize)
        found: dict[int, Certificate] = {}

        def done(index: int, certificate: Certificate) -> None:
            found[index] = certificate
            if on_certificate is not None:
                on_certificate(index, certificate)
            if on_progress is not None:
                on_progress(len(found) / len(loaded), f"{len(found)} of {len(loaded)} images")

        with self.turns.alone():
            certifier.run(loaded.images, noise_source(noise), loaded.names, done)
        return [found[index] for index in range(len(loaded))]

    def explained(self, error: NotFiniteError, preset: Preset) -> NotFiniteError:
        """The error with the preset's name, and with what to do about the variant."""
        return NotFiniteError(f"{self._called(preset)}{error}{self._advice()}", code=error.code)

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
