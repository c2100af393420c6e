"""Purify and classify images with a bundle: the object that users hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral
from os import PathLike
from typing import Any

from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..errors import ConfigError
from ..images.frames import Size, load_frame
from ..images.load import Order, Resize, load_images
from ..methods.presets import Preset
from ..rows.noise import NoiseSource, noise_source
from ..types import Progress
from ..validation import expect
from .arguments import Reading, failures_of
from .batches import Batches
from .cascade import certifier_of
from .certificate import Certificate, CertifySettings
from .frames import FrameRequest, Pad
from .heads import Head, Images, Labels, as_they_are
from .monitor import Monitor
from .results import Failure, FrameResult, Purified, Result, Results
from .track import Track


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


class Purifier(Batches):
    """A bundle on an engine. Use `load` to make one, and ``with`` to give its memory back.

    Its methods may be called from several threads; they run one after another, so a long call keeps the others waiting:
    `edgepure.Service` lets the images of many callers share the UNet calls. It belongs to the process that opened it: a
    worker process (also a forked one) opens its own.
    """

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
        head, reading, chosen = Labels(self.graphs), Reading(resize, order, on_error), self.preset(preset, votes)
        return self._load_and_run(head, images, chosen, noise, mask, reading, on_progress, monitor)

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
        reading, chosen = Reading(resize, order, on_error), self.preset(preset, 1)
        return self._load_and_run(self.own_head(), images, chosen, noise, mask, reading, on_progress)

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
        expect(number=(number, Integral), whole=(whole, bool), on_progress=(on_progress, Callable, None))
        chosen = self.preset(preset)
        name, pixels = load_frame(frame, self.image_shape[0], size=size, order=order)
        with self._turn(chosen):
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
            result = request.result(name)
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
        together: boxes are fused, of label maps the mean softmax or the majority of each pixel counts, vectors are
        averaged. Coordinates are those of the images that the task sees.

        Args:
            purify: False shows the images as they are to the task, without any defence: to compare.
            images, preset, votes, noise, resize, order, on_error, on_progress, mask: as for `classify`.

        Raises:
            ImageError: as `classify`.
            ConfigError: as `classify`, or the bundle has neither task nor classifier.
        """
        expect(purify=(purify, bool), on_progress=(on_progress, Callable, None))
        head = self.task_head()
        reading, chosen = Reading(resize, order, on_error), self.preset(preset, votes)
        if purify:
            return self._load_and_run(head, images, chosen, noise, mask, reading, on_progress)
        if mask is not None:
            raise ConfigError("a mask was given, and nothing is purified; leave one of them out", code="E-mask-unused")
        loaded = reading.load(images, head.image(self.bundle.manifest))
        plain = as_they_are(head, loaded.images, loaded.names, chosen)
        return Results(plain, failures_of(loaded))

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
        expect(track=(track, Track, None))
        chosen, source = self.preset(preset, votes), None if noise is None else noise_source(noise)
        reading = Reading(resize, order, "collect")
        reading.check()
        self.planner.plan(chosen)
        manifest = self.bundle.manifest
        head: Head[Any] = Images() if manifest.task is None and not self.classes else self.task_head()
        head.check(chosen)
        image = head.image(manifest)

        def answers() -> Iterator[Any]:
            for number, frame in enumerate(frames):
                loaded = reading.load([frame], image)
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

    def certify(
        self,
        images: Any,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        n: int = 10_000,
        n0: int | None = None,
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
            n0: answers that choose the class before; None: 100, and 1 with ``radius``, see `CertifySettings`.
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
        certifier = certifier_of(self.graphs, self.preset(preset), CertifySettings(n, n0, alpha, radius))
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
