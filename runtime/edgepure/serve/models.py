"""The models of a server: opened, proved by their self-test, replaced and unloaded without dropping a request."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import EdgepureError, VerificationError
from ..parity.tolerances import image_tolerance, loosest
from ..purify.purifier import Purifier, load
from ..purify.results import Purified
from ..purify.service import Service
from ..types import Float32
from .outputs import outputs_of
from .settings import ModelSettings


class UnknownModelError(EdgepureError):
    """A client names a model or version that is not there (exit code 1)."""

    code = "E-model-unknown"


class Model:
    """One bundle on an engine, with the service that runs its slots.

    Attributes:
        purifier, service, settings: what it is made of.
        outputs: what clients may have.
        loaded: seconds since the epoch.
        proved: whether the last self-test was answered as it should be.
        proof: in words, what the last self-test was.
    """

    def __init__(self, settings: ModelSettings, show: frozenset[str] = frozenset()) -> None:
        """Open the bundle, start its service, and put the self-test through it.

        Args:
            settings: what is served, and how.
            show: what the owner lets clients have beyond the answer itself.

        Raises:
            BundleError, ProviderError, ConfigError: as `edgepure.load` and `edgepure.Service`.
            VerificationError: the self-test was answered otherwise than it was recorded.
        """
        self.settings = settings
        self.purifier: Purifier = load(
            settings.path,
            settings.provider,
            precision=settings.precision,
            threads=settings.threads,
            slots=settings.slots,
        )
        try:
            monitor = None if settings.flag_rate is None else self.purifier.monitor(settings.flag_rate)
            self.service = Service(
                self.purifier,
                settings.preset,
                votes=settings.votes,
                waiting=settings.waiting,
                monitor=monitor,
                lanes=settings.lanes,
            )
        except BaseException:
            self.purifier.close()
            raise
        self.loaded = time.time()
        votes = self.purifier.preset(settings.preset, settings.votes).votes
        self.outputs = outputs_of(self.purifier.bundle.manifest, show, abstains=votes.sequential is not None)
        self.proved, self.proof = False, "not asked yet"
        self._vector = self._find_vector()
        self._users, self._unused = 0, threading.Condition()
        try:
            self._prove(300.0 * self.tiles)
        except BaseException:
            self.close()
            raise

    def _find_vector(self) -> tuple[Float32, int, Float32 | None]:
        """Image, seed and recorded purified image of the preset's self-test; a gray image where none was recorded."""
        manifest = self.purifier.bundle.manifest
        name = self.settings.preset or manifest.default_preset
        selftest = self.purifier.bundle.selftest()
        recorded = selftest.pipelines.get(name)
        if recorded is None or (manifest.framed and recorded.frames is None):
            return np.full(self.image_shape, 0.5, np.float32), 0, None
        if recorded.frames is not None:
            return selftest.graphs["task"].inputs["image"][0], recorded.seed, recorded.frames[0]
        return recorded.image[0], recorded.seed, recorded.purified[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of the images that are answered, or of the frames of its task."""
        return self.purifier.bundle.manifest.task_image.shape

    @property
    def kind(self) -> str:
        """What it does with purified images."""
        task = self.purifier.bundle.manifest.task
        return "classification" if task is None else task.kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what it tells apart, in the order of its labels."""
        task = self.purifier.bundle.manifest.task
        return self.purifier.classes if task is None else task.classes

    @property
    def tiles(self) -> int:
        """Of an image that is answered: a frame takes as many times longer."""
        preset = self.purifier.preset(self.settings.preset, self.settings.votes)
        return self.purifier.graphs.unet_calls(preset) // self.purifier.planner.unet_calls(preset)

    def probe(self) -> Future[Any]:
        """Put the self-test's image through the service, as an urgent image of a client goes."""
        image, seed, _ = self._vector
        return self.service.submit(image, noise=seed, urgent=True)

    def _prove(self, seconds: float) -> None:
        try:
            found = self.probe().result(timeout=seconds)
        except Late:
            raise VerificationError(
                f"model {self.settings.name}: the self-test was not answered within {seconds:g} seconds; look whether "
                "the engine works (`edgepure bench`), or give a preset of fewer UNet calls",
                code="E-serve-selftest-late",
            ) from None
        self.check(found)

    def check(self, result: Purified) -> None:
        """Compare the answer with what was recorded at export.

        Raises:
            VerificationError: they differ by more than rounding; the model is not ready any more.
        """
        recorded = self._vector[2]
        self.proved, self.proof = False, "the self-test was answered wrongly"
        if recorded is not None:
            inside = self.purifier.bundle.manifest.graphs_in(self.settings.precision).values()
            calls = self.purifier.planner.unet_calls(self.purifier.preset(self.settings.preset, self.settings.votes))
            bound = image_tolerance(loosest(entry.precision for entry in inside), calls)
            difference = float(np.abs(result.image - recorded).max())
            if not difference <= bound.max_abs:
                raise VerificationError(
                    f"model {self.settings.name}: the self-test differs by {difference:.3g} from what was recorded, at "
                    f"most {bound.max_abs:.3g} is rounding; run `edgepure verify {self.settings.path}`",
                    code="E-serve-selftest",
                )
        self.proved = True
        self.proof = "answered as recorded" if recorded is not None else "answered; the preset has no recorded vector"

    @contextmanager
    def used(self) -> Iterator[Model]:
        """Keep it open while a request is answered."""
        with self._unused:
            self._users += 1
        try:
            yield self
        finally:
            with self._unused:
                self._users -= 1
                self._unused.notify_all()

    def retire(self, timeout: float) -> None:
        """Wait until no request uses it, at most so long, then close it."""
        with self._unused:
            self._unused.wait_for(lambda: self._users == 0, timeout)
        self.close()

    def close(self) -> None:
        """End the service, then the engines."""
        self.service.close()
        self.purifier.close()


class Models:
    """All models of a server by name and version. Thread-safe."""

    def __init__(self, drain: float, show: frozenset[str] = frozenset()) -> None:
        self._drain, self._show = drain, show
        self._settings: dict[tuple[str, str], ModelSettings] = {}
        self._open: dict[tuple[str, str], Model] = {}
        self._newest: dict[str, Model] = {}
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have this loop listen to the lanes of all models, from now on."""
        self._loop = loop
        for model in self:
            model.service.attach(loop)

    def add(self, settings: ModelSettings) -> None:
        """Serve one more model, or load one anew: requests go to the old one until the new one has proved itself."""
        with self._loading:
            model = Model(settings, self._show)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(model.service.attach, self._loop)
            key = settings.name, settings.version
            with self._lock:
                old, self._open[key], self._settings[key] = self._open.get(key), model, settings
                self._sort()
        if old is not None:
            old.retire(self._drain)
        del old, model
        _settle()

    def load(self, name: str) -> None:
        """Open all versions of a known model anew, from the folders that the owner named.

        Raises:
            UnknownModelError: the owner named none of that name.
        """
        known = [settings for (mine, _), settings in self._settings.items() if mine == name]
        if not known:
            raise UnknownModelError(f"the owner of this server has named no model {name!r}", code="E-model-not-named")
        for settings in known:
            self.add(settings)

    def unload(self, name: str) -> None:
        """Take no more requests for a model, finish those that are inside, and close it."""
        with self._lock:
            keys = [key for key in self._open if key[0] == name]
            found = [self._open.pop(key) for key in keys]
            self._sort()
        if not found:
            raise UnknownModelError(f"no model {name!r} is loaded", code="E-model-not-loaded")
        for model in found:
            model.retire(self._drain)

    @contextmanager
    def get(self, name: str, version: str = "") -> Iterator[Model]:
        """A model while it is used; without a version, the newest.

        Raises:
            UnknownModelError: it is not there.
        """
        with self._lock:
            model = self._open.get((name, version)) if version else self._newest.get(name)
            if model is None:
                raise UnknownModelError(
                    f"no model {name!r}" + (f" of version {version!r}" if version else ""), code="E-model-unknown"
                )
            use = model.used()
            use.__enter__()
        try:
            yield model
        finally:
            use.__exit__(None, None, None)

    def _sort(self) -> None:
        self._newest = {name: self._open[name, self.versions(name)[-1]] for name, _ in self._open}

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are loaded, the oldest first: numbers by their size, then words."""
        found = [version for mine, version in self._open if mine == name]
        return sorted(found, key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0, v))

    def known(self) -> Mapping[tuple[str, str], Model | None]:
        """All that the owner named, and the model where it is loaded."""
        with self._lock:
            return {key: self._open.get(key) for key in self._settings}

    def close(self) -> None:
        """Close all of them."""
        for model in [model for model in self.known().values() if model is not None]:
            model.close()
        self._open.clear()
        self._newest.clear()

    def __iter__(self) -> Iterator[Model]:
        with self._lock:
            return iter(list(self._open.values()))


def _settle() -> None:
    """What is loaded now stays: Python need not look through it for garbage again and again, which answers nobody."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def metadata(model: Model, versions: list[str], max_images: int) -> dict[str, Any]:
    """Inputs and outputs in the protocol's words."""
    c, h, w = model.image_shape
    return {
        "name": model.settings.name,
        "versions": versions,
        "platform": "edgepure",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, c, h, w]}],
        "outputs": [{"name": o.name, "datatype": o.datatype, "shape": [-1, *o.shape]} for o in model.outputs],
        "parameters": {
            "answers": model.kind,
            "classes": list(model.classes),
            "also_taken": ["BYTES [-1]: image files", f"UINT8 [-1, {h}, {w}, {c}]"],
            "max_images": max_images,
        },
    }
