"""What an export may be told besides its networks, images, blocks and presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from edgepure.bundle.calibration import Calibration
from edgepure.errors import ConfigError
from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec

from ..graphs.attention import BlockTransform
from ..graphs.to_onnx import OPSET
from .after_export import DEFAULT_TOLERANCE


@dataclass(frozen=True)
class ExportSettings:
    """Settings of `export_bundle` and `export_from_sources`; every name is also taken as an argument of the two.

    Attributes:
        channels: 1 for gray, 3 for RGB.
        schedule: noise schedule of the diffusion model; None: linear VP with T = 1000.
        classes: names of the classes; None: their numbers, or what the source knows.
        default_preset: None: the first one.
        norm_p, block_transforms: see `MaskModule`.
        mask_input: see `MaskModule`; None: ``own``, or what published presets say.
        learned_variance: None: as the network's output channels say. False: use only its epsilon.
        any_size: add a graph for whole frames of any height and width, where the diffusion network allows it; parity is
            measured at two sizes.
        tolerance: of the parity check (`after_export.DEFAULT_TOLERANCE`), one number or one per graph.
        check_epsilon: refuse a network that does not predict noise as noise; False for untrained networks.
        selftest_calls: presets with more UNet calls than this get no recorded purification, because PyTorch has to run
            all of them.
        calibration: of an earlier export of the same networks.
        name: of the bundle; None: the directory's name.
        classifier_source, backbone_source, task_source, diffusion_source: where the networks come from, for the
            provenance.
        opset: see `export_graph`.
        threads: CPU threads of the parity check; None: one per core.
        overwrite: replace a bundle that is already there.
    """

    channels: int = 3
    schedule: NoiseSchedule | ScheduleSpec | Mapping[str, Any] | None = None
    classes: Sequence[str] | None = None
    default_preset: str | None = None
    norm_p: float = 2.0
    mask_input: Literal["own", "official"] | None = None
    block_transforms: Mapping[str, BlockTransform] | None = None
    learned_variance: bool | None = None
    any_size: bool = False
    tolerance: float | Mapping[str, float] = DEFAULT_TOLERANCE
    check_epsilon: bool = True
    selftest_calls: int = 100
    calibration: Calibration | None = None
    name: str | None = None
    classifier_source: str | None = None
    backbone_source: str | None = None
    task_source: str | None = None
    diffusion_source: str | None = None
    opset: int = OPSET
    threads: int | None = None
    overwrite: bool = False

    def changed(self, changes: Mapping[str, Any]) -> ExportSettings:
        """The same with other values.

        Raises:
            ConfigError: a name that is no setting.
        """
        names = [field.name for field in fields(self)]
        for name in changes:
            if name not in names:
                near = ", ".join(get_close_matches(name, names, 3) or names)
                raise ConfigError(f"an export has no setting {name!r}; it has {near}", code="E-export-settings")
        return replace(self, **changes)
