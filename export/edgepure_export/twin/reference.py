"""The PyTorch reference: the same rows that the runtime executes, differentiable end to end.

It says what an exported bundle must compute, and it is what white-box attacks differentiate. How rows are executed says
`torch_rows`; here are masks, score norms, presets and what is made of purified images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgepure.errors import ConfigError, ImageError
from edgepure.methods.planner import Planner
from edgepure.methods.presets import MaskSpec, Preset
from edgepure.methods.restore import MASK_VOTE
from edgepure.purify.masks import check_mask_use
from edgepure.rows.noise import NoiseSource
from edgepure.rows.plan import Plan
from edgepure.rows.schedule import NoiseSchedule

from ..graphs.attention import RULES
from ..graphs.mask_cut import MaskGradient, cut_map
from ..graphs.step import LearnedStepModule, StepModule
from .noise_batches import Noise, SourceNoise
from .torch_rows import TorchRows

#: What the votes of a batch share: mask, score norms and plans.
_Prepared = tuple[Tensor | None, Tensor | None, tuple[Plan, ...]]


@dataclass(frozen=True)
class Purification:
    """What the reference computed for a batch with one preset, one vote.

    Attributes:
        purified: [B, C, H, W] in [0, 1].
        logits: [B, N] of the purified images; N is 0 without a classifier.
        mask: [B, 1, H, W]; None for presets without a mask.
        score_norms: [B]; None without SSNI.
        plans: one per image.
        task: outputs of the task on the purified images, by name; none without one that takes images.
    """

    purified: Tensor
    logits: Tensor
    mask: Tensor | None
    score_norms: Tensor | None
    plans: tuple[Plan, ...]
    task: Mapping[str, Tensor] = field(default_factory=dict)


class TorchReference(TorchRows):
    """Executes plans with PyTorch. `edgepure_export.twin.twin.load_twin` makes one from the graphs of a bundle.

    Args:
        unet: ``unet(x [B, C, H, W], t [B]) -> epsilon [B, C, H, W]``, or [B, 2C, H, W] with a learned variance. All
            networks are put in eval mode. Or None, if the rows are given:
        step, learned_step: modules that execute one row, called as `StepModule` and `LearnedStepModule` are.
        schedule: of the diffusion model; `run_preset` needs it to compile plans.
        classifier: images [B, C, H, W] in [0, 1] -> logits [B, N].
        task: images as the classifier -> the outputs of a task, a tensor or a tuple in the order of ``names``.
        mask_module: computes attention masks; `MaskModule(classifier, blocks, size)` or what is called as it is.
        image_shape: ``(C, H, W)`` of the images that the networks take; None: whatever comes.
        framed: the task takes frames, larger than the images of the other networks (`edgepure_export.twin.frames`).
        checkpointing: compute each row again in the backward pass. Without it a backward pass needs the activations of
            all rows, and takes about a quarter less time.
    """

    def __init__(
        self,
        unet: nn.Module | None = None,
        *,
        step: nn.Module | None = None,
        learned_step: nn.Module | None = None,
        schedule: NoiseSchedule | None = None,
        classifier: nn.Module | None = None,
        task: nn.Module | None = None,
        names: Sequence[str] = (),
        mask_module: nn.Module | None = None,
        image_shape: tuple[int, int, int] | None = None,
        framed: bool = False,
        checkpointing: bool = True,
    ) -> None:
        if unet is not None:
            step, learned_step = StepModule(unet), LearnedStepModule(unet)
        if step is None:
            raise ConfigError(
                "the reference has nothing to execute rows with; give it a `unet` or a `step`", code="E-twin-executor"
            )
        self.unet = unet
        super().__init__(step, learned_step, checkpointing)
        self.schedule = schedule
        self.classifier = classifier.eval() if classifier is not None else None
        self.task = task.eval() if task is not None else None
        self.task_names = tuple(names)
        self.mask_module = mask_module.eval() if mask_module is not None else None
        self.image_shape, self.framed = image_shape, framed
        self._planners: dict[int, Planner] = {}

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All modules that it computes with."""
        parts = (self.step, self.learned_step, self.classifier, self.task, self.mask_module)
        return tuple(part for part in parts if part is not None)

    def purify(
        self,
        x01: Tensor,
        plan: Plan | Sequence[Plan],
        noise: Noise,
        mask: Tensor | MaskSpec | Callable[[Tensor], Tensor] | None = None,
        mask_gradient: MaskGradient = "none",
        *,
        on_row: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Purify images [B, C, H, W] in [0, 1] -> the same, clipped as the runtime does.

        ``mask``: as `run`, or how to compute it from the images. ``mask_gradient`` says whether gradients
        flow through that computation (see `MaskGradient`). ``on_row``: as `run`.
        """
        if isinstance(mask, MaskSpec):
            mask = self.mask(x01, mask, mask_gradient)
        return (0.5 * self.run(2.0 * x01 - 1.0, plan, noise, mask, on_row=on_row) + 0.5).clamp(0.0, 1.0)

    def mask(self, x01: Tensor, spec: MaskSpec, gradient: MaskGradient = "none") -> Tensor:
        """The attention mask [B, 1, H, W] of images in [0, 1].

        Raises:
            ConfigError: there is no mask module, or the mask is of another source: `run_preset` has the noise for that.
        """
        if spec.source == "residual":
            raise ConfigError(
                f"a mask of the source {spec.source!r} is computed with noise; use run_preset", code="E-twin-missing"
            )
        if self.mask_module is None:
            raise ConfigError(
                "the reference has no mask module; give it the classifier's blocks to tap", code="E-twin-mask"
            )
        full = torch.ones(len(x01), dtype=x01.dtype, device=x01.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient != "none"):
            _, mask, _ = self.mask_module(
                x01,
                full * (spec.threshold if spec.threshold is not None else 0.0),
                full * spec.area_input(x01.shape[2] * x01.shape[3]),
                full * RULES[spec.rule],
                gradient,
            )
        result: Tensor = mask
        return result

    def residual_mask(
        self, x01: Tensor, spec: MaskSpec, noise: NoiseSource, first_image: int = 0, gradient: MaskGradient = "none"
    ) -> Tensor:
        """The mask [B, 1, H, W] of the source ``residual``, with the noise that the runtime draws for it."""
        plans = [self._planner(x01).rows(spec.residual)] * len(x01)
        draws = SourceNoise(noise, plans, x01, vote=MASK_VOTE, probe=True, first_image=first_image)
        window = spec.residual.window
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient != "none"):
            ref = 2.0 * x01 - 1.0
            r = 0.5 * (self.run(ref, plans, draws) - ref).abs().mean(1, keepdim=True)
            found = F.avg_pool2d(r, window, stride=1, padding=window // 2, count_include_pad=False)
            full = torch.ones((len(x01), 1, 1, 1), dtype=x01.dtype, device=x01.device)
            threshold = full * (spec.threshold if spec.threshold is not None else 0.0)
            area = full * spec.area_input(x01.shape[2] * x01.shape[3])
            return cut_map(found, found, threshold, area, 0.0 * full, gradient)

    def score_norm(self, x01: Tensor, probe: Plan | Sequence[Plan], noise: Noise) -> Tensor:
        """Euclidean norm [B] of the EPS vector that a probe plan leaves in x."""
        norms: Tensor = torch.linalg.vector_norm(self.run(2.0 * x01 - 1.0, probe, noise).flatten(1), dim=1)
        return norms

    def logits(self, x01: Tensor) -> Tensor:
        """The plain classifier: [B, C, H, W] in [0, 1] -> [B, N]."""
        if self.classifier is None:
            raise ConfigError("the reference has no classifier", code="E-twin-classifier")
        result: Tensor = self.classifier(x01)
        return result

    def task_outputs(self, x01: Tensor) -> dict[str, Tensor]:
        """The outputs of the task on images [B, C, H, W] in [0, 1], by name; none without a task."""
        if self.task is None:
            return {}
        found = self.task(x01)
        return dict(zip(self.task_names, found if isinstance(found, tuple) else (found,), strict=True))

    def run_preset(
        self,
        x01: Tensor,
        preset: Preset,
        noise: NoiseSource,
        *,
        vote: int = 0,
        first_image: int = 0,
        mask_gradient: MaskGradient = "none",
        mask: Tensor | None = None,
        on_row: Callable[[int, Tensor], None] | None = None,
    ) -> Purification:
        """Mask, score norm, plan, purification and logits of one vote, as the runtime does them with the same noise.

        SSNI's choice of a plan has no gradient (plans are discrete); everything else is differentiable. ``mask``
        [B, 1, H, W] takes the place of the attention mask. ``on_row`` sees the states of the purification (see `run`),
        not those of a probe.
        """
        state = self._prepare(x01, preset, noise, first_image, mask_gradient, mask)
        source = self._source(x01, state, noise, vote, first_image)
        return self._answered(state, *self._purified(x01, preset, state, source, mask_gradient, on_row))

    def run_votes(
        self,
        x01: Tensor,
        preset: Preset,
        noise: NoiseSource,
        *,
        votes: Iterable[int] | None = None,
        first_image: int = 0,
        mask_gradient: MaskGradient = "none",
    ) -> list[Purification]:
        """`run_preset` for several votes (None: all of the preset), which share mask, score norms and plans."""
        state = self._prepare(x01, preset, noise, first_image, mask_gradient)
        chosen = range(preset.votes.count) if votes is None else votes
        sources = (self._source(x01, state, noise, vote, first_image) for vote in chosen)
        return [self._answered(state, *self._purified(x01, preset, state, s, mask_gradient)) for s in sources]

    def purify_preset(
        self,
        x01: Tensor,
        preset: Preset,
        noise: NoiseSource,
        *,
        mask_gradient: MaskGradient = "none",
        mask: Tensor | None = None,
    ) -> Tensor:
        """The first vote's purified images [B, C, H, W] in [0, 1], without classifying them."""
        state = self._prepare(x01, preset, noise, 0, mask_gradient, mask)
        return self._purified(x01, preset, state, self._source(x01, state, noise, 0, 0), mask_gradient)[0]

    def _task_of(self, purified: Tensor) -> dict[str, Tensor]:
        return {} if self.framed else self.task_outputs(purified)

    def _answers(self, purified: Tensor) -> Tensor:
        return purified.new_zeros((len(purified), 0)) if self.classifier is None else self.logits(purified)

    def _prepare(
        self,
        x01: Tensor,
        preset: Preset,
        noise: NoiseSource,
        first_image: int,
        mask_gradient: MaskGradient,
        mask: Tensor | None = None,
    ) -> _Prepared:
        planner = self._planner(x01)
        check_mask_use(preset, mask is not None)
        if preset.mask is not None and preset.mask.source == "residual" and mask is None:
            mask = self.residual_mask(x01, preset.mask, noise, first_image, mask_gradient)
        elif preset.mask is not None and mask is None and not preset.method.mask_of_view:
            mask = self.mask(x01, preset.mask, mask_gradient)
        norms: Tensor | None = None
        plans = (planner.plan(preset),) * len(x01)
        probe = planner.probe(preset)
        if probe is not None:
            with torch.no_grad():
                probes = [probe] * len(x01)
                source = SourceNoise(noise, probes, x01, probe=True, first_image=first_image)
                norms = self.score_norm(x01, probes, source)
            plans = tuple(planner.plan(preset, float(n)) for n in norms)
        return mask, norms, plans

    def _source(self, x01: Tensor, state: _Prepared, noise: NoiseSource, vote: int, first_image: int) -> SourceNoise:
        return SourceNoise(noise, state[2], x01, mask=state[0], vote=vote, first_image=first_image)

    def _answered(self, state: _Prepared, purified: Tensor, mask: Tensor | None) -> Purification:
        return Purification(purified, self._answers(purified), mask, *state[1:], self._task_of(purified))

    def _purified(
        self,
        x01: Tensor,
        preset: Preset,
        state: _Prepared,
        source: SourceNoise,
        mask_gradient: MaskGradient,
        on_row: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Of one vote the purified images, and their masks."""
        spec, masks = preset.mask, [state[0]]

        def of_view(x: Tensor) -> Tensor:
            assert spec is not None
            masks.append(found := self.mask(x, spec, mask_gradient))
            return found

        given = of_view if masks[0] is None and preset.method.mask_of_view else masks[0]
        return self.purify(x01, state[2], source, given, on_row=on_row), masks[-1]

    def _planner(self, x01: Tensor) -> Planner:
        if self.schedule is None:
            raise ConfigError("the reference has no noise schedule to compile presets with", code="E-twin-schedule")
        shape = list(x01.shape)
        if len(shape) != 4 or not shape[0] or shape[1:] != list(self.image_shape or shape[1:]):
            expected = ", ".join(map(str, self.image_shape or ("C", "H", "W")))
            raise ImageError(
                f"the batch has the shape {shape}, expected [B, {expected}] with at least one image",
                code="E-batch-shape",
            )
        elements = x01[0].numel()
        return self._planners.setdefault(elements, Planner(self.schedule, elements))
