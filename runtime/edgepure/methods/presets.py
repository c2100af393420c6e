"""A preset: everything that decides how an image is purified, under one name in a bundle."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..errors import ConfigError
from ..validation import Entry, fault_code, first_fault
from .registry import AnyMethod
from .restore import RestoreSpec
from .ssni import SsniSpec
from .tiles import TileSpec


class MaskSpec(Entry):
    """How the attention map becomes the mask of strong noise.

    ``minmax`` (authors' code): per-image min-max, maximum over blocks. ``softmax`` (paper): spatial softmax per block,
    union of the blocks. Give ``threshold`` (tau, in [0, 1]) or ``area`` (the fraction of pixels to attend), not both.

    The source ``residual`` looks for patches: where the image differs from what comes back of it (`RestoreSpec`). Then
    ``threshold`` is that difference, in [0, 1], and the rule does not matter.

    With the source ``caller`` there is nothing to compute: every call brings its mask, and neither of them is given.
    """

    source: Literal["attention", "residual", "caller"] = Field(
        "attention", description="residual: what does not come back of a restoration; caller: each call gives its mask"
    )
    rule: Literal["minmax", "softmax"] = "minmax"
    threshold: float | None = Field(None, ge=0.0, le=1.0, description="tau")
    area: float | None = Field(None, gt=0.0, le=1.0)
    residual: RestoreSpec = RestoreSpec()

    @model_validator(mode="after")
    def _one_of(self) -> MaskSpec:
        if self.source == "caller":
            if self.threshold is not None or self.area is not None:
                raise ConfigError(
                    "a mask of the `caller` is not computed: leave out `threshold` and `area`", code="E-mask-caller"
                )
        elif (self.threshold is None) == (self.area is None):
            raise ConfigError("give either `threshold` (tau) or `area`, not both and not neither", code="E-mask-rule")
        return self

    def area_input(self, pixels: int) -> float:
        """What the mask graph gets as ``area``, so that its float32 attends ``k = int(pixels * area)`` of the pixels.

        0 if the mask has a threshold. The product is truncated in float64, as the authors do: 400 * 0.29 is 115.
        """
        return 0.0 if self.area is None else (int(pixels * self.area) + 0.5) / pixels


class SequentialSpec(Entry):
    """The votes of an image end when its answer is settled: it is the most probable one, except with probability
    ``alpha``. At ``max`` votes without that, it abstains; with ``give_up`` as soon as the chance is smaller than that
    that the votes which are left settle it."""

    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    max: int = Field(20, ge=2, le=1000)
    give_up: float = Field(0.0, ge=0.0, lt=1.0)


class VoteSpec(Entry):
    """``count`` independent purifications of an image decide together: ``majority`` of labels (ties go to the higher
    mean probability) or the ``mean`` of the softmax outputs.

    With ``sequential`` there are fewer of them where the answer is settled before; then ``count`` is the most, and the
    rule is the majority.
    """

    count: int = Field(1, ge=1, le=1000)
    rule: Literal["majority", "mean"] = "mean"
    sequential: SequentialSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_sequential(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("sequential") is None:
            return data
        given = data["sequential"]
        if isinstance(given, dict):
            most = given.get("max", SequentialSpec.model_fields["max"].default)
        else:
            most = getattr(given, "max", 1)
        return {"count": most, "rule": "majority", **data}

    @model_validator(mode="after")
    def _agrees(self) -> VoteSpec:
        if self.sequential is not None and (self.count, self.rule) != (self.sequential.max, "majority"):
            raise ConfigError(
                "with `sequential`, leave out `count` and `rule`: they are its max and the majority",
                code="E-votes-sequential",
            )
        return self


class CascadeSpec(Entry):
    """Noises from strong to weak: the answer is that of the first at which a class has ``share`` of the answers, else
    that of the last. ``then``: the methods after the preset's own, each with weaker noise. Votes are sequential.
    """

    then: tuple[AnyMethod, ...] = Field(min_length=1, max_length=3)
    share: float = Field(0.6, ge=0.5, lt=1.0)


class Preset(Entry):
    """Method, mask, SSNI and votes; weaker noises for what the first one leaves open; how frames of another size are
    cut; the precision that it was tuned in."""

    method: AnyMethod
    mask: MaskSpec | None = None
    ssni: SsniSpec | None = None
    votes: VoteSpec = VoteSpec()
    cascade: CascadeSpec | None = None
    tiles: TileSpec = TileSpec()
    description: str = ""
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"] | None = None

    @model_validator(mode="after")
    def _mask_where_needed(self) -> Preset:
        if self.method.needs_mask and self.mask is None:
            raise ConfigError(
                f"method '{self.method.method}' needs a `mask` (threshold or area, or the source caller)",
                code="E-preset-mask",
            )
        if self.method.mask_of_view and self.mask is not None and self.mask.source != "attention":
            raise ConfigError(
                f"method '{self.method.method}' computes its mask from a noised copy, so the mask is of the source "
                f"attention, not {self.mask.source}",
                code="E-preset-mask-view",
            )
        return self

    @model_validator(mode="after")
    def _cascade_agrees(self) -> Preset:
        if self.cascade is None:
            return self
        methods = (self.method, *self.cascade.then)
        if self.votes.sequential is None:
            raise ConfigError(
                "a `cascade` needs sequential votes, which say whether a class has its share of the answers",
                code="E-cascade-votes",
            )
        if self.ssni is not None or any(method.needs_mask for method in methods):
            raise ConfigError(
                "a `cascade` has no SSNI, and no method with a mask: its noises are the same for every image and pixel",
                code="E-cascade-parts",
            )
        for before, after in pairwise(methods):
            if type(before) is type(after) and after.top_level >= before.top_level:
                raise ConfigError(
                    f"the noises of a `cascade` fall from strong to weak, and {after.top_level:g} comes after "
                    f"{before.top_level:g}",
                    code="E-cascade-order",
                )
        return self

    @property
    def stages(self) -> tuple[Preset, ...]:
        """The presets of which a cascade is made, without it: itself alone, where there is none."""
        if self.cascade is None:
            return (self,)
        methods = (self.method, *self.cascade.then)
        return tuple(self.model_copy(update={"method": method, "cascade": None}) for method in methods)

    @classmethod
    def parse(cls, data: Any) -> Preset:
        """Build a preset from plain data; the error names the key, what came and what was expected."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(
                f"preset: {first_fault(error, data, cls.model_json_schema)}", code=fault_code(error, "E-preset")
            ) from None
