"""Diffusion models from checkpoint files: the schemes ``guided-diffusion``, ``score-sde`` and ``edm``.

``guided-diffusion:256x256_diffusion_uncond.pt``, ``score-sde:checkpoint_8.pth``, and ``edm:FILE``, a state dict whose
config is in ``FILE.json``, ``?settings=``, or beside it in the file. Options: ``preset`` (the published networks of the
family), ``settings`` (a json file with the original flags or config; default: ``FILE.json`` if it is there), ``entry``
(of a file with several sets of weights).
``SCHEME:PRESET?weights=random`` makes an untrained network of a published architecture. See `networks.load`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from edgepure.errors import ExportError
from edgepure.rows.schedule import NoiseSchedule

from ..networks import edm, edm_unets, guided_config, guided_diffusion, ncsnpp, ncsnpp_config
from ..networks.load import DiffusionFamily, load_diffusion
from ..networks.parametrisation import EpsilonModel
from .random_weights import with_random_weights
from .scheme import DiffusionSource, SourceText, diffusion_scheme, origin_of, weight_files

#: EDM's unconditional networks of 32 x 32 images (its files carry no presets; these are for random weights).
_EDM = {
    "cifar10-32x32-uncond-vp": edm_unets.EdmUNetConfig(img_resolution=32, augment_dim=9),
    "cifar10-32x32-uncond-ve": edm_unets.EdmUNetConfig(
        img_resolution=32,
        augment_dim=9,
        channel_mult_noise=2,
        embedding_type="fourier",
        encoder_type="residual",
        resample_filter=(1, 3, 3, 1),
    ),
}


@dataclass(frozen=True)
class _Architectures:
    """The published networks of a family by name, and how to make one without a file.

    Attributes:
        presets: configurations by name.
        network: makes the network of a configuration.
        epsilon: puts it into the runtime's convention.
        image: names of the configuration's fields for channels and image size.
    """

    presets: Mapping[str, Any]
    network: Callable[[Any], nn.Module]
    epsilon: Callable[[Any, NoiseSchedule], EpsilonModel]
    image: tuple[str, str] = ("channels", "image_size")


_FAMILIES: dict[DiffusionFamily, _Architectures] = {
    "guided-diffusion": _Architectures(
        guided_config.PRESETS, guided_diffusion.GuidedDiffusionUNet, guided_diffusion.epsilon_model
    ),
    "score-sde": _Architectures(ncsnpp_config.PRESETS, ncsnpp.NCSNpp, ncsnpp.epsilon_model),
    "edm": _Architectures(
        _EDM,
        edm_unets.SongUNet,
        lambda network, schedule: edm.EdmEpsilon(network, edm.Preconditioning(), schedule),
        ("in_channels", "img_resolution"),
    ),
}


def _resolve(family: DiffusionFamily, source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    return (_untrained if source.random else _from_file)(family, source, schedule)


for _family in _FAMILIES:
    diffusion_scheme(_family)(partial(_resolve, _family))


def _from_file(family: DiffusionFamily, source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    source.allow("preset", "settings", "entry", "weights")
    if "weights" in source.options:
        raise ExportError(
            f"{source.text!r}: the file itself holds the weights; leave the weights option out",
            code="E-source-weights-twice",
        )
    given = source.options.get
    loaded = load_diffusion(family, source.place, given("preset"), given("settings"), schedule, given("entry"))
    return DiffusionSource(
        loaded.model,
        origin_of(source, *weight_files(source.place)),
        loaded.schedule.spec,
        loaded.network,
        (loaded.channels, loaded.image_size, loaded.image_size),
        description=loaded.description,
    )


def _untrained(family: DiffusionFamily, source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    source.allow("weights")
    kind = _FAMILIES[family]
    config = kind.presets.get(source.place)
    if config is None:
        raise ExportError(
            f"{source.text!r}: with random weights name one of {', '.join(kind.presets)}", code="E-source-architecture"
        )
    network = with_random_weights(lambda: kind.network(config))
    channels, size = (int(getattr(config, name)) for name in kind.image)
    return DiffusionSource(
        kind.epsilon(network, schedule),
        origin_of(source),
        schedule.spec,
        network,
        (channels, size, size),
        untrained=True,
        description=f"{family} network {source.place}, random weights",
    )
