"""The gate of a variant. It is in decisions: what counts is what is made of the purified image, a label by the
classifier or the answer of a task.

Every purification is repeated with other noise in fp32, too: how much that changes is the measure of how much a change
means. A variant gets the same noise as fp32, so what it changes is its own doing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgepure.errors import ConfigError, EdgepureError
from edgepure.methods.presets import Preset
from edgepure.purify.masks import middle_mask
from edgepure.purify.purifier import Purifier

from .drift import Drifts, drift_check
from .judge import Answers, Data, Judge
from .labels import LabelJudge
from .recording import of_slots, tiling
from .task_judge import TaskJudge
from .verdict import Limits, PresetGate

#: Called with the share that is done.
OnShare = Callable[[float], None]


class Decisions:
    """Decisions of fp32, taken once and compared with those of every draft.

    Args:
        purifier: the fp32 bundle.
        data: images by ``clean`` and ``attacked``.
        presets: by name.
        redraws: noises that each image is purified with, at least 2.
        seed: of the noises.
        limits: the fewest images follow from them.

    Raises:
        ConfigError: too few images to show anything, or the bundle decides nothing.
    """

    def __init__(
        self,
        purifier: Purifier,
        data: Mapping[str, Data],
        presets: Mapping[str, Preset],
        redraws: int,
        seed: int,
        limits: Limits,
    ) -> None:
        if redraws < 2:
            raise ConfigError(
                f"{redraws} noise for each image: at least 2 are needed to see what new noise changes",
                code="E-quantize-decisions",
            )
        for name, part in data.items():
            needed = limits.images_needed(part.labels is not None)
            if len(part) < needed:
                least = 1.0 - 0.05 ** (1.0 / max(len(part), 1))
                raise ConfigError(
                    f"{len(part)} {name} images are left to judge with, too few to show with 95 % confidence that at "
                    f"most {100 * limits.flips:g} % of the decisions flip and {100 * limits.accuracy:g} % are lost: "
                    f"that takes {needed}, however many noises each is judged with; give more images, or allow more "
                    f"(--max-flips {least + 0.005:.2f} --max-loss {least + 0.005:.2f})",
                    code="E-quantize-images",
                )
        self.purifier, self.data, self.presets = purifier, dict(data), dict(presets)
        self.redraws, self.seed, self.limits = redraws, seed, limits
        self._judge: Judge[Any] = LabelJudge(data) if purifier.classes else TaskJudge(data, purifier)  # type: ignore[arg-type]
        self._known: dict[tuple[str, str], Answers] = {}
        self._drifts = Drifts(purifier, of_slots(purifier, next(iter(self.data.values())).images), seed)

    def known(self) -> Answers:
        """The fp32 answers so far, to go on with later: arrays by preset, data set and name."""
        return {
            f"{preset}/{part}/{name}": array
            for (preset, part), answers in self._known.items()
            for name, array in answers.items()
        }

    def remember(self, known: Answers) -> None:
        """Take over what `known` gave."""
        for key, array in known.items():
            preset, part, name = key.rsplit("/", 2)
            if preset in self.presets and part in self.data:
                self._known.setdefault((preset, part), {})[name] = array

    def cost(self, preset: str) -> int:
        """UNet calls of all decisions of a preset, once, at its full noise level."""
        probe = self.purifier.planner.probe(self.presets[preset])
        images = sum(len(part) for part in self.data.values())
        rows = self.purifier.planner.plan(self.presets[preset]).unet_calls
        calls = images * (self.redraws * rows + (0 if probe is None else probe.unet_calls))
        return calls * len(tiling(self.purifier, self.presets[preset].tiles.overlap))

    def of_fp32(self, preset: str, on_share: OnShare | None = None) -> None:
        """Take the decisions of a preset in fp32, unless they are known."""
        for part in self.data:
            if (preset, part) not in self._known:
                self._known[preset, part] = self._decide(self.purifier, preset, part, on_share)

    def compare(self, variant: Purifier, preset: str, on_share: OnShare | None = None) -> PresetGate:
        """Run one preset of a variant through the gate (all but its speed)."""
        self.of_fp32(preset)
        theirs = {part: self._known[preset, part] for part in self.data}
        try:
            mine = {part: self._decide(variant, preset, part, on_share) for part in self.data}
            drift, redraw = self._drifts.of(variant, preset, self.presets[preset])
        except EdgepureError as error:  # NaN or infinite values
            return PresetGate(preset, {}, (), (), (), str(error))
        changes, checks = self._judge.changes(mine, theirs, self.limits)
        if redraw:
            checks.append(drift_check(drift, redraw, self.limits.drift))
        return PresetGate(preset, changes, drift, redraw, tuple(checks))

    def _decide(self, purifier: Purifier, preset: str, part: str, on_share: OnShare | None) -> Answers:
        images, before, spec = self.data[part].images, 0, self.presets[preset]
        for name in self.data:
            if name == part:
                break
            before += len(self.data[name])
        every = sum(len(other) for other in self.data.values())
        shown = None
        if on_share is not None:
            shown = lambda share, _: on_share((before + len(images) * share) / every)  # noqa: E731
        callers = spec.mask is not None and spec.mask.source == "caller"
        masks = middle_mask(len(images), images.shape[2:]) if callers else None
        return self._judge.answers(purifier, images, spec, self.redraws, self.seed, masks, shown)
