"""An open bundle with a preset, and the images of one command that go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import typer

from ..bundle.bundle import Bundle
from ..errors import ConfigError, ImageError
from ..images.load import Order
from ..machine.energy import joules, spent
from ..methods.planner import Planner
from ..purify.heads import Head, P
from ..purify.masks import check_mask_use
from ..purify.monitor import Monitor
from ..purify.purifier import Purifier
from ..purify.results import Failure
from ..rows.noise import noise_source
from .batches import run_chunks
from .masks import GivenMasks
from .options import PresetOptions, RayOptions, ReadOptions, SlotOptions
from .output import counted, emit_json, note, say
from .presets import choose_preset
from .progress import Progress
from .sources import Source

SEED_WARNING = (
    "warning: --seed makes the noise predictable, and noise that an attacker can predict is no defence; "
    "use it for tests and audits only"
)


class Session:
    """What `purify` and `classify` share: the open bundle, the preset, the clock."""

    def __init__(
        self,
        bundle: Path,
        chosen: PresetOptions,
        read: ReadOptions,
        engine: SlotOptions,
        *,
        votes: int | None = None,
        rule: str | None = None,
        mask: Path | None = None,
        masked: bool = False,
        needs: str | None = None,
        size: tuple[int, int] | None = None,
        ray: RayOptions | None = None,
    ) -> None:
        """``mask``: the caller's, a file or folder. ``masked``: the masks are written. ``needs``: what the bundle must
        have a classifier for; None: nothing. ``size``: height and width of the masks of images; None: those of the
        bundle. ``ray``: the workers of a cluster compute, and no engine is opened here."""
        preset, changes = chosen.preset, chosen.change
        # Everything that can be wrong without an engine is checked before one is opened.
        self._read, self.noise = read, None if read.seed is None else noise_source(read.seed)
        if read.seed is not None:
            note(SEED_WARNING)
        with Progress("opening the bundle"):
            opened = Bundle.open(bundle)
        manifest = opened.manifest
        if needs is not None:
            manifest.require_classifier(needs)
        extra = [f"votes.count={votes}"] if votes is not None else []
        extra += [f"votes.rule={rule}"] if rule is not None else []
        self.name, _ = choose_preset(manifest.presets, manifest.default_preset, preset, changes)
        _, self.preset = choose_preset(manifest.presets, manifest.default_preset, preset, [*changes, *extra])
        channels, height, width = manifest.image.shape
        Planner(manifest.schedule.build(), channels * height * width).unet_calls(self.preset)
        if masked and self.preset.mask is None:
            raise ConfigError(f"--mask-out: preset {self.name} has no mask", code="E-mask-missing")
        check_mask_use(self.preset, mask is not None)
        self.masks = None if mask is None else GivenMasks(mask, size or (height, width))
        self.manifest, self._bundle, self._engine, self._ray = manifest, opened, engine, ray
        self._opened: Purifier | None = None
        if ray is None or ray.ray is None:
            with Progress(f"starting the engine {engine.provider!r}"):
                self._opened = Purifier(opened, **asdict(engine))
        self._start, self._joules = perf_counter(), joules()

    @property
    def purifier(self) -> Purifier:
        """The open bundle; there is none where a cluster computes."""
        assert self._opened is not None
        return self._opened

    def spread(
        self, sources: Sequence[Source], what: str, head: str, entry: Callable[[int, Any], dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[Failure]]:
        """Let a Ray cluster do it: ``entry`` is called here, with the position of a source and its result, and makes
        what is shown and kept of it."""
        from .spread import Task, spread

        assert self._ray is not None
        order: Order = "bgr" if self._read.bgr else "rgb"
        task = Task.of(self._bundle, self.preset, head, self._read.seed, self._read.resize, order, asdict(self._engine))
        with Progress(f"{what} {counted(len(sources), 'image')}") as bar:
            return spread(task, sources, self._ray, entry, bar.update)

    def run(
        self,
        sources: Sequence[Source],
        on_result: Callable[[int, P], None],
        what: str,
        head: Head[P],
        monitor: Monitor | None = None,
    ) -> list[Failure]:
        count = f"{len(sources)} images" if len(sources) > 1 else "1 image"
        with Progress(f"{what} {count}") as bar:
            return run_chunks(
                self.purifier,
                head,
                self.preset,
                sources,
                noise=self.noise,
                resize=self._read.resize,
                order="bgr" if self._read.bgr else "rgb",
                on_result=on_result,
                on_share=bar.update,
                monitor=monitor,
                masks=None if self.masks is None else self.masks.of(sources),
            )

    def finish(
        self,
        results: list[dict[str, Any]],
        failures: list[Failure],
        as_json: bool,
        show: Callable[[], None],
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Print the results, then the failures; exit 4 if there are any."""
        seconds = perf_counter() - self._start
        calls, used = sum(r["unet_calls"] for r in results), spent(self._joules)
        energy = {} if used is None else {"gpu_joules": round(used, 3)}
        if as_json:
            emit_json(
                {
                    "bundle": self.manifest.name, "preset": self.name,
                    "provider": self._engine.provider, "precision": self._engine.precision, "results": results,
                    "failures": [{"name": f.name, "reason": f.reason} for f in failures],
                    "unet_calls": calls, "seconds": round(seconds, 6), **energy, **(extra or {}),
                }
            )  # fmt: skip
        elif results:
            show()
            say(f"\n{counted(len(results), 'image')}, preset {self.name}: {calls} UNet calls in {seconds:.2f} s")
        if self._opened is not None:
            self._opened.close()
        if failures:
            for failure in failures:
                note(f"error: {failure.name}: {failure.reason}")
            total = len(results) + len(failures)
            rest = {0: "", 1: "; the other one is done"}.get(len(results), f"; the other {len(results)} are done")
            note(f"{len(failures)} of {counted(total, 'image')} could not be used{rest}")
            raise typer.Exit(ImageError.exit_code)
