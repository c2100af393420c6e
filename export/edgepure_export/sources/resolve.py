"""Where networks come from: a text such as ``timm:resnet50`` becomes a PyTorch module, ready for export.

A source is ``scheme:place`` or ``scheme:place?option=value&option=value``. Each scheme is a function, registered with
`classifier_scheme` or `diffusion_scheme`; the command line and the Python interface go through the same two resolvers.
The scheme ``python`` imports a module, so it runs that module's code: give it only code that you trust. No other scheme
runs code from files.

Weights are never random in silence: only ``?weights=random`` makes them so, and the bundle's provenance says it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

from torch import nn

from edgepure.errors import ExportError
from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec

from ..networks.checkpoints import load_weights, read_checkpoint, state_dict_from
from .python import load_module

#: Value of the option ``weights`` that asks for untrained networks of the true architecture.
RANDOM = "random"


@dataclass(frozen=True)
class SourceText:
    """A source as a user wrote it: ``scheme:place?option=value``."""

    text: str
    scheme: str
    place: str
    options: Mapping[str, str]

    @property
    def random(self) -> bool:
        """True if the source asks for random weights."""
        return self.options.get("weights") == RANDOM

    def allow(self, *names: str) -> None:
        """Refuse options that this scheme does not have."""
        unknown = sorted(set(self.options) - set(names))
        if unknown:
            offered = ", ".join(names) or "none"
            raise ExportError(f"{self.text!r} has the unknown option {unknown[0]!r}; {self.scheme}: has {offered}")

    def choice(self, name: str, *values: str) -> str:
        """The value of an option, one of ``values``; the first one if it is not given."""
        value = self.options.get(name, values[0])
        if value not in values:
            raise ExportError(f"{self.text!r}: {name}={value} is unknown; choose {', '.join(values)}")
        return value

    def number(self, name: str) -> int | None:
        """The value of an option as a positive whole number; None if it is not given."""
        value = self.options.get(name)
        if value is None:
            return None
        if not value.isdigit() or int(value) == 0:
            raise ExportError(f"{self.text!r}: {name}={value} must be a positive whole number")
        return int(value)


@dataclass(frozen=True)
class ClassifierSource:
    """A classifier ``image [B, C, H, W] in [0, 1] -> logits [B, N]`` in eval mode.

    Attributes:
        model: the network, its preprocessing inside.
        origin: the text that it was resolved from, for the bundle's provenance.
        classes: names of the classes, where the source knows them.
        network: the library's own module inside ``model``, into which weights are loaded; None: ``model`` itself.
        untrained: the weights are random, as the source asked for.
        preprocessing: what happens to an image before the network, for people.
    """

    model: nn.Module
    origin: str
    classes: tuple[str, ...] | None = None
    network: nn.Module | None = None
    untrained: bool = False
    preprocessing: str = "none"


@dataclass(frozen=True)
class DiffusionSource:
    """An epsilon-model ``(x [B, C, H, W], t [B] float) -> epsilon [B, C, H, W]`` in eval mode.

    Attributes:
        model: the network; with ``2C`` output channels it predicts a variance too.
        origin: the text that it was resolved from.
        schedule: the noise schedule whose index ``t`` is, where the source knows it.
        network: the family's own module inside ``model``.
        image: channels, height and width of the images that it was trained on, where the source knows them.
        untrained: the weights are random, as the source asked for.
        description: one line for people.
    """

    model: nn.Module
    origin: str
    schedule: ScheduleSpec | None = None
    network: nn.Module | None = None
    image: tuple[int, int, int] | None = None
    untrained: bool = False
    description: str = ""


S = TypeVar("S", ClassifierSource, DiffusionSource)
#: Makes a classifier from a source. The second argument is the image size of the diffusion model, (H, W), if known.
ClassifierResolver = Callable[[SourceText, "tuple[int, int] | None"], ClassifierSource]
#: Makes an epsilon-model whose timestep is the index of the given schedule.
DiffusionResolver = Callable[[SourceText, NoiseSchedule], DiffusionSource]


@dataclass
class _Registry:
    classifiers: dict[str, ClassifierResolver] = field(default_factory=dict)
    diffusions: dict[str, DiffusionResolver] = field(default_factory=dict)


_REGISTRY = _Registry()


def classifier_scheme(scheme: str) -> Callable[[ClassifierResolver], ClassifierResolver]:
    """Decorator: register a resolver of classifiers for ``scheme:...``."""

    def register(resolver: ClassifierResolver) -> ClassifierResolver:
        _REGISTRY.classifiers[scheme] = resolver
        return resolver

    return register


def diffusion_scheme(scheme: str) -> Callable[[DiffusionResolver], DiffusionResolver]:
    """Decorator: register a resolver of diffusion models for ``scheme:...``."""

    def register(resolver: DiffusionResolver) -> DiffusionResolver:
        _REGISTRY.diffusions[scheme] = resolver
        return resolver

    return register


def resolve_classifier(
    source: str, weights: str | PathLike[str] | None = None, image_size: tuple[int, int] | None = None
) -> ClassifierSource:
    """Make a classifier.

    Args:
        source: ``scheme:place?option=value``, for example ``timm:resnet50`` or ``python:package.module:function``.
        weights: a ``.safetensors`` or ``.pt`` file to load into it, or ``random``; the same as ``?weights=``.
        image_size: height and width of the images that it will get; a library's own preprocessing resizes from there.

    Raises:
        ExportError: unknown scheme or option, nothing behind the source, no network, or weights that do not fit.
    """
    _known_schemes()
    parsed = parse_source(source, "classifier", tuple(_REGISTRY.classifiers), weights)
    return _finished(_REGISTRY.classifiers[parsed.scheme](parsed, image_size))


def resolve_diffusion(
    source: str, weights: str | PathLike[str] | None = None, schedule: NoiseSchedule | None = None
) -> DiffusionSource:
    """Make an epsilon-model.

    Args:
        source, weights: as `resolve_classifier`.
        schedule: the schedule whose index the runtime sends as ``t``; None: linear VP with T = 1000. A network that was
            trained with another one is called at its own index of the same noise level.
    """
    _known_schemes()
    parsed = parse_source(source, "diffusion model", tuple(_REGISTRY.diffusions), weights)
    return _finished(_REGISTRY.diffusions[parsed.scheme](parsed, schedule or NoiseSchedule.linear()))


def parse_source(
    text: str, what: str, schemes: tuple[str, ...], weights: str | PathLike[str] | None = None
) -> SourceText:
    """Take a source apart. ``weights`` stands for the option of that name."""
    scheme, colon, rest = text.partition(":")
    if not colon or not rest or scheme not in schemes:
        raise ExportError(
            f"{what} {text!r}: expected scheme:name with one of the schemes {', '.join(sorted(schemes))}; for example "
            "python:package.module:function"
        )
    place, mark, query = rest, "", ""
    if not Path(rest).exists():  # a file name may contain a question mark
        place, mark, query = rest.partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if mark else ():
        name, equals, value = part.partition("=")
        if not equals or not name or not value or name in options:
            raise ExportError(f"{what} {text!r}: expected ?option=value&option=value after the name, got {part!r}")
        options[name] = value
    if weights is not None:
        if "weights" in options:
            raise ExportError(f"{what} {text!r} names its weights, and so does the weights option; give them once")
        options["weights"] = fspath(weights)
    if not place:
        raise ExportError(f"{what} {text!r}: there is no name after {scheme}:")
    return SourceText(text, scheme, place, options)


def load_file(network: nn.Module, file: str | PathLike[str], entry: str | None = None) -> None:
    """Put the weights of a ``.safetensors`` or ``.pt`` file (``weights_only``) into a network, exactly: every key.

    Args:
        entry: the entry of the file to take, where it holds several sets of weights.

    Raises:
        CheckpointError: unreadable file, code in a pickle, or keys and shapes that do not fit; they are listed.
    """
    load_weights(network, state_dict_from(read_checkpoint(file), fspath(file), entry), fspath(file))


def describe_file(text: SourceText, file: str | PathLike[str]) -> str:
    """A source in the provenance: its scheme, name and options, and the SHA-256 of its weights.

    Of paths only the last part stays: the folders of the exporting machine are nobody's business.
    """
    options = "&".join(f"{k}={Path(v).name}" for k, v in text.options.items())
    with Path(file).open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 22):
            digest.update(block)
    place = Path(text.place).name if Path(text.place).exists() else text.place
    return f"{text.scheme}:{place}{'?' if options else ''}{options} (sha256 {digest.hexdigest()})"


@classifier_scheme("python")
def _python_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    return ClassifierSource(_python_network(source), source.text)


@diffusion_scheme("python")
def _python_diffusion(source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    return DiffusionSource(_python_network(source), source.text)


def _python_network(source: SourceText) -> nn.Module:
    source.allow("weights")
    if source.random:
        raise ExportError(f"{source.text!r}: your own code decides about random weights; leave ?weights=random out")
    network = load_module(source.place)
    if "weights" in source.options:
        load_file(network, source.options["weights"])
    return network


def _known_schemes() -> None:
    """The schemes register themselves when their modules are imported."""


def _finished(source: S) -> S:
    source.model.eval()
    return source
