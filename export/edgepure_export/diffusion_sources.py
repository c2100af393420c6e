"""Diffusion models from checkpoint files: the schemes ``guided-diffusion``, ``score-sde`` and ``edm``.

Options: ``preset`` (the published networks of the family), ``settings`` (a json file with the original flags or config;
default: ``FILE.json`` if it is there), ``entry`` (of a file with several sets of weights).
``SCHEME:PRESET?weights=random`` makes an untrained network of a published architecture. See `networks.load`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from edgepure.errors import ExportError
from edgepure.schedule import NoiseSchedule

from .networks import edm, edm_unets, guided_diffusion, ncsnpp
from .networks.load import DiffusionFamily, load_diffusion
from .parametrisation import EpsilonModel
from .random_weights import with_random_weights
from .sources import DiffusionSource, SourceText, describe_file, diffusion_scheme

#: EDM's unconditional networks of 32 x 32 images (its files carry no presets; these are for random weights).
_EDM = {
    "cifar10-32x32-uncond-vp": edm_unets.EdmUNetConfig(img_resolution=32, augment_dim=9),
    "cifar10-32x32-uncond-ve": edm_unets.EdmUNetConfig(
        img_resolution=32, augment_dim=9, channel_mult_noise=2, embedding_type="fourier", encoder_type="residual",
        resample_filter=(1, 3, 3, 1),
    ),
}  # fmt: skip


@diffusion_scheme("guided-diffusion")
def guided_diffusion_source(source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    """``guided-diffusion:FILE``, for example ``guided-diffusion:256x256_diffusion_uncond.pt``."""
    if not source.random:
        return _from_file("guided-diffusion", source, schedule)
    config = _preset(source, guided_diffusion.PRESETS)
    network = with_random_weights(lambda: guided_diffusion.GuidedDiffusionUNet(config))
    model = guided_diffusion.epsilon_model(network, schedule)
    return _untrained(source, model, network, config.channels, config.image_size, schedule)


@diffusion_scheme("score-sde")
def score_sde_source(source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    """``score-sde:FILE``, for example ``score-sde:checkpoint_8.pth``."""
    if not source.random:
        return _from_file("score-sde", source, schedule)
    config = _preset(source, ncsnpp.PRESETS)
    network = with_random_weights(lambda: ncsnpp.NCSNpp(config))
    model = ncsnpp.epsilon_model(network, schedule)
    return _untrained(source, model, network, config.channels, config.image_size, schedule)


@diffusion_scheme("edm")
def edm_source(source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    """``edm:FILE``, a state dict; its config in ``FILE.json``, ``?settings=``, or beside it in the file."""
    if not source.random:
        return _from_file("edm", source, schedule)
    config = _preset(source, _EDM)
    network = with_random_weights(lambda: edm_unets.SongUNet(config))
    model = edm.EdmEpsilon(network, edm.Preconditioning(), schedule)
    return _untrained(source, model, network, config.in_channels, config.img_resolution, schedule)


def _from_file(family: DiffusionFamily, source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    source.allow("preset", "settings", "entry", "weights")
    if "weights" in source.options:
        raise ExportError(f"{source.text!r}: the file itself holds the weights; leave the weights option out")
    given = source.options.get
    loaded = load_diffusion(family, source.place, given("preset"), given("settings"), schedule, given("entry"))
    return DiffusionSource(
        loaded.model,
        describe_file(source, source.place),
        loaded.schedule.spec,
        loaded.network,
        (loaded.channels, loaded.image_size, loaded.image_size),
        description=loaded.description,
    )


def _preset(source: SourceText, presets: dict[str, Any]) -> Any:
    source.allow("weights")
    if source.place not in presets:
        raise ExportError(f"{source.text!r}: with random weights name one of {', '.join(presets)}")
    return presets[source.place]


def _untrained(
    source: SourceText, model: EpsilonModel, network: nn.Module, channels: int, size: int, schedule: NoiseSchedule
) -> DiffusionSource:
    about = f"{source.scheme} network {source.place}, random weights"
    return DiffusionSource(
        model, source.text, schedule.spec, network, (channels, size, size), untrained=True, description=about
    )
