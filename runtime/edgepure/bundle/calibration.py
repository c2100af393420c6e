"""What a calibration measured on a bundle's models: the typed `calibration` of the manifest.

`edgepure calibrate` writes it. The runtime reads two things of it: the reference sample of clean score norms, against
which `edgepure.purify.monitor` gives every result a p-value, and the probe that was chosen. The rest is evidence for
people.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..methods import EpsSpec
from ..validation import Entry

#: Clean score norms that are kept of one probe at most.
MAX_SAMPLE = 1000

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Norm = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class ScoreNorms(Entry):
    """The score norms of one set of images with one probe."""

    images: Count
    mean: Norm
    std: Norm = Field(description="sample standard deviation")
    min: Norm
    max: Norm
    quantiles: dict[str, Norm] = Field(description="share of the images below (a decimal in 0..1, as text) to norm")


class Separation(Entry):
    """How well a probe tells other images from clean ones."""

    against: Literal["attacked", "random signs"] = Field(
        description="attacked: attacked images; random signs: clean images with random signs added, a stand-in"
    )
    norms: ScoreNorms = Field(description="of the other images")
    auroc: Share = Field(description="chance that such an image has the larger norm; 0.5 is a coin")
    low: Share = Field(description="of the 95 % interval of auroc")
    high: Share
    difference: float = Field(description="of the means, in standard deviations of the clean norms")


class ProbeCalibration(Entry):
    """One probe: its clean score norms, and what it separates."""

    probe: EpsSpec
    clean: ScoreNorms
    sample: tuple[Norm, ...] = Field(
        (), max_length=MAX_SAMPLE, description="clean norms drawn at random, ascending; empty: not kept"
    )
    separation: Separation | None = None
    precision: Precision | None = Field(None, description="of the step graph measured; null: that of the calibration")

    @model_validator(mode="after")
    def _ascending(self) -> ProbeCalibration:
        if any(a > b for a, b in zip(self.sample, self.sample[1:], strict=False)):
            raise ConfigError("`sample` must be in ascending order", code="E-norms-order")
        return self


class LinearReweighting(Entry):
    """SSNI-L: ``t = (n - xi_min) / (xi_max - xi_min) * t* + bias * t*``."""

    xi_min: Norm
    xi_max: Norm
    bias: float = Field(0.0, description="as a fraction of t*")


class SigmoidReweighting(Entry):
    """SSNI-N: ``t = (t* + bias * t*) / (1 + exp(-(n - mu) / tau))``."""

    mu: Norm
    tau: float = Field(gt=0.0)
    bias: float = Field(0.0, description="as a fraction of t*")


class FirstCall(Entry):
    """Could the first UNet call of a purification serve as the probe?"""

    preset: str
    probe: EpsSpec = Field(description="one call at the noise level and label of the preset's first row")
    rank_correlation: float = Field(
        ge=-1.0,
        le=1.0,
        description="Spearman, with the norms of the chosen probe, over clean and other images together",
    )
    full_probe: EpsSpec | None = Field(None, description="the papers' probe of many calls, where it was measured")
    full_rank_correlation: float | None = Field(None, ge=-1.0, le=1.0, description="with the norms of full_probe")
    separation: Separation | None = None


class MaskArea(Entry):
    """The share of the pixels of clean images inside the mask, at one threshold."""

    threshold: Share = Field(description="tau")
    area: Share = Field(description="mean over the images")
    low: Share = Field(description="5 % of the images have less inside")
    high: Share = Field(description="5 % of the images have more inside")


class MaskCalibration(Entry):
    """Which threshold covers which area."""

    rule: Literal["minmax", "softmax"]
    images: Count
    areas: tuple[MaskArea, ...] = Field(min_length=1)


class DataRecord(Entry):
    """The images that were measured."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of pixels and labels")
    images: Count
    accuracy: Share | None = Field(None, description="of the classifier without purification; null: unlabelled")


class Calibration(Entry):
    """All of ``calibration``."""

    created: date
    edgepure_version: str
    precision: Precision = Field("fp32", description="of the step graph measured")
    seed: int = Field(ge=0, description="of the noise of the probes")
    clean: DataRecord
    attacked: DataRecord | None = None
    probes: tuple[ProbeCalibration, ...] = Field(min_length=1)
    chosen: EpsSpec = Field(description="one of `probes`")
    reason: str = Field(description="why it was chosen")
    linear: LinearReweighting
    sigmoid: SigmoidReweighting
    first_call: FirstCall | None = None
    masks: tuple[MaskCalibration, ...] = ()

    @model_validator(mode="after")
    def _chosen_is_measured(self) -> Calibration:
        if self.find(self.chosen) is None:
            raise ConfigError("`chosen` is not among the probes; name one that was measured", code="E-probe-chosen")
        return self

    def find(self, probe: EpsSpec, precision: str | None = None) -> ProbeCalibration | None:
        """The measurement of a probe in a precision (None: that of the calibration); None if it was not measured."""
        wanted = precision or self.precision
        found = (p for p in self.probes if (p.precision or self.precision) == wanted)
        return next((p for p in found if p.probe.same_rows(probe)), None)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions in which the chosen probe was measured."""
        return tuple(sorted({p.precision or self.precision for p in self.probes if p.probe.same_rows(self.chosen)}))
