"""Is it an epsilon model, is it a classifier? Asked before anything is exported, answered in one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgepure.errors import ExportError, words_of
from edgepure.images.spec import ImageSpec

from ..graphs.attention import MaskModule

_log = logging.getLogger(__name__)

#: Correlation of the prediction with pure noise at the highest timestep: an epsilon model gives nearly 1.
WRONG_CORRELATION, DOUBTFUL_CORRELATION = 0.1, 0.5
#: Its standard deviation there, likewise 1.
SCALE_RANGE = (0.2, 5.0)
#: An image alone and among others: so much may its output differ, relative to the largest value (and at least 1).
ALONE_TOLERANCE = 1e-3


def check_module(what: str, module: Any) -> None:
    """ExportError if it is no PyTorch module, or one that cannot be traced."""
    if not isinstance(module, nn.Module):
        raise ExportError(
            f"the {what} is a {type(module).__name__}, expected a torch.nn.Module: wrap a function in one, load a "
            "state dict into one",
            code="E-network-kind",
        )
    if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        raise ExportError(
            f"the {what} is TorchScript, which cannot be exported; give the module that it was made from",
            code="E-network-kind",
        )


def check_placement(what: str, module: nn.Module) -> None:
    """Export runs in float32 on the CPU, whatever the engine does later; ExportError if the weights are elsewhere."""
    for name, parameter in module.named_parameters():
        if parameter.device.type != "cpu":
            raise ExportError(
                f"the {what} is on {parameter.device} (weight {name!r}); export a copy on the CPU: module.cpu()",
                code="E-network-placement",
            )
        if parameter.dtype != torch.float32:
            raise ExportError(
                f"the {what} has {parameter.dtype} weights ({name!r}); export it in float32: module.float()",
                code="E-network-placement",
            )


def size_multiple(unet: nn.Module, image: ImageSpec) -> int:
    """Of what the sides of its images have to be multiples: the smallest step from the bundle's size that it takes.

    Raises:
        ExportError: it takes no other size; code ``E-export-size``.
    """
    for multiple in (1, 2, 4, 8, 16, 32, 64, 128):
        if image.height % multiple or image.width % multiple:
            continue
        x = torch.zeros((2, image.channels, image.height + multiple, image.width + 2 * multiple))
        with torch.no_grad():
            try:
                output = unet(x, torch.zeros(2))
            except Exception:  # sizes that do not fit together
                continue
        if isinstance(output, Tensor) and output.shape[2:] == x.shape[2:]:
            return multiple
    raise ExportError(
        f"the diffusion network takes images of {image.height} x {image.width} pixels only; export it without any_size "
        "(--any-size), and purify frames by tiles",
        code="E-export-size",
    )


def check_unet(unet: nn.Module, image: ImageSpec, timesteps: int, *, trained: bool = True) -> bool:
    """Check a diffusion network on noise.

    Args:
        unet: ``unet(x [B, C, H, W], t [B])``.
        image: size of the images.
        timesteps: T of the schedule.
        trained: also check that it predicts epsilon: at the highest timestep ``x`` is all noise, so a trained epsilon
            model returns nearly ``x`` itself. A network with random weights does not.

    Returns:
        True if it has a learned variance (2C output channels).

    Raises:
        ExportError: it is not an epsilon model.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((4, *image.shape), generator=generator)
    t = torch.full((4,), float(timesteps - 1))
    with torch.no_grad():
        try:
            output = unet(x, t)
        except Exception as error:  # any user code
            raise ExportError(
                f"the diffusion network fails on x {list(x.shape)} and t [4]: {type(error).__name__}: "
                f"{words_of(error)}; it must take images of {image.channels} x {image.height} x {image.width} and "
                "float timesteps",
                code="E-network-fails",
            ) from error
    learned = _check_output(output, x)
    check_alone("diffusion network", lambda: unet(x[:1], t[:1]), lambda: unet(x, t), output)
    if not trained:
        return learned
    eps = output[:, : image.channels]
    correlation = float(torch.corrcoef(torch.stack([x.flatten(), eps.flatten()]))[0, 1])
    scale = float(eps.std())
    hint = (
        "wrap a v-, x0-, score- or EDM-network so that it returns epsilon (edgepure_export.networks.parametrisation), "
        "check the schedule and the timestep scale, or leave this check out for an untrained network "
        "(check_epsilon=False, --any-network)"
    )
    if not correlation >= WRONG_CORRELATION:
        raise ExportError(
            "the diffusion network does not predict epsilon: on pure noise at the last timestep its output should be "
            f"nearly that noise, but the correlation is {correlation:.2f}; {hint}",
            code="E-network-epsilon",
        )
    if not SCALE_RANGE[0] <= scale <= SCALE_RANGE[1]:
        raise ExportError(
            "the diffusion network does not predict epsilon: on pure noise at the last timestep its output should have "
            f"unit scale, but its standard deviation is {scale:.3g}; {hint}",
            code="E-network-epsilon",
        )
    if correlation < DOUBTFUL_CORRELATION:
        _log.warning("the diffusion network's output correlates with pure noise by only %.2f; %s", correlation, hint)
    return learned


def check_classifier(classifier: nn.Module, images: Tensor, classes: int | None) -> int:
    """Run a classifier on images [B, C, H, W] in [0, 1] and return its number of classes.

    Raises:
        ExportError: it fails, or does not give finite logits [B, N] with the expected N.
    """
    with torch.no_grad():
        try:
            logits: Any = classifier(images)
        except ExportError:
            raise
        except Exception as error:  # any user code
            raise ExportError(
                f"the classifier fails on images {list(images.shape)}: {type(error).__name__}: {words_of(error)}; "
                "its preprocessing (resizing included) must be part of the module",
                code="E-classifier-fails",
            ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ExportError(
            f"the classifier gives {got} for {len(images)} images, expected the tensor of logits [{len(images)}, "
            "classes]; wrap it in a module that returns only them",
            code="E-classifier-output",
        )
    if not bool(torch.isfinite(logits).all()):
        raise ExportError(
            "the classifier gives NaN or infinite logits for ordinary images in [0, 1]; check its weights",
            code="E-network-finite",
        )
    if logits.shape[1] < 2:
        raise ExportError(
            "the classifier has one output; purified classification needs at least 2 classes",
            code="E-classifier-classes",
        )
    if classes is not None and classes != logits.shape[1]:
        raise ExportError(
            f"{classes} class names were given, but the classifier has {logits.shape[1]} outputs",
            code="E-classes-count",
        )
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1.0).abs() < 1e-4).all()):
        raise ExportError(
            "the classifier gives probabilities (every row sums to 1), expected logits: leave out its softmax, or "
            "return the logarithm",
            code="E-network-probabilities",
        )
    check_alone("classifier", lambda: classifier(images[:1]), lambda: classifier(images), logits)
    return int(logits.shape[1])


def check_backbone(mask: MaskModule, images: Tensor) -> None:
    """Run a network whose blocks are tapped, on images [B, C, H, W] in [0, 1]; what it gives is not looked at.

    Raises:
        ExportError: it fails, its blocks give no finite maps, or an image's map depends on the others of the batch.
    """

    def attention(x: Tensor) -> Tensor:
        zeros = torch.zeros(len(x))
        found: Tensor = mask(x, zeros, zeros, zeros)[2]
        return found

    with torch.no_grad():
        try:
            maps = attention(images)
        except ExportError:
            raise
        except Exception as error:  # any user code
            raise ExportError(
                f"the backbone fails on images {list(images.shape)}: {type(error).__name__}: {words_of(error)}; "
                "its preprocessing (resizing included) must be part of the module",
                code="E-network-fails",
            ) from error
    if not bool(torch.isfinite(maps).all()):
        raise ExportError(
            "the tapped blocks of the backbone give NaN or infinite values for ordinary images in [0, 1]; check its "
            "weights",
            code="E-network-finite",
        )
    check_alone("backbone", lambda: attention(images[:1]), lambda: attention(images), maps)


def check_alone(what: str, alone: Callable[[], Any], again: Callable[[], Any], together: Tensor) -> None:
    """Images share calls with whoever comes at the same time; none may change the answer of another.

    Args:
        alone: runs the first image by itself.
        again: runs the whole batch once more: a network that draws random numbers answers differently.
        together: what the batch gave.
    """
    with torch.no_grad():
        try:
            single, second = alone(), again()
        except Exception as error:  # any user code
            raise ExportError(
                f"the {what} fails on a batch of 1: {type(error).__name__}: {words_of(error)}; it must take "
                "any number of images",
                code="E-network-batch-one",
            ) from error
    scale = ALONE_TOLERANCE * max(1.0, float(together.abs().max()))
    drawn = float((torch.as_tensor(second) - together).abs().max())
    if not drawn <= scale:
        raise ExportError(
            f"the {what} answers differently when it is shown the same batch twice (off by {drawn:.3g}): it draws "
            "random numbers (dropout that stays on, a noise layer) or changes with every call; make a module of it "
            "that does not, because engines ignore seeds",
            code="E-network-random",
        )
    difference = float((torch.as_tensor(single).flatten() - together[0].flatten()).abs().max())
    if not difference <= scale:
        raise ExportError(
            f"the {what} answers differently for an image alone and among others (off by {difference:.3g}), though the "
            "same batch gives the same answer twice: it mixes the images of a batch; let each be normalised by itself, "
            "and give a BatchNorm its running statistics",
            code="E-network-batch",
        )


def _check_output(output: Any, x: Tensor) -> bool:
    channels, size = x.shape[1], list(x.shape[2:])
    if not isinstance(output, Tensor):
        raise ExportError(
            f"the diffusion network returns a {type(output).__name__}, expected the tensor epsilon; "
            "wrap it in a module that returns its first element or `.sample`",
            code="E-network-output",
        )
    expected = f"epsilon [4, {channels}, {size[0]}, {size[1]}], or {2 * channels} channels with a learned variance"
    if output.ndim != 4 or len(output) != len(x) or list(output.shape[2:]) != size:
        raise ExportError(
            f"the diffusion network gives {list(output.shape)} for x {list(x.shape)}, expected {expected}",
            code="E-network-shape",
        )
    if output.shape[1] not in (channels, 2 * channels):
        raise ExportError(
            f"the diffusion network gives {output.shape[1]} channels, expected {expected}", code="E-network-channels"
        )
    if not bool(torch.isfinite(output).all()):
        raise ExportError(
            "the diffusion network gives NaN or infinite values on unit noise; check its weights",
            code="E-network-finite",
        )
    return bool(output.shape[1] == 2 * channels)
