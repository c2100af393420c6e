"""What a model source is: a function that makes a network of a text such as ``timm:resnet50``.

A source is one file. Its functions are registered with `classifier_scheme` or `diffusion_scheme`; a package of somebody
else names the file under the entry-point group ``edgepure.sources``, with the scheme as the name:

    [project.entry-points."edgepure.sources"]
    mine = "my_package.my_source"
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path

import torch
from torch import nn

from edgepure.errors import ExportError
from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec

from ..networks.checkpoints import read_checkpoint, shards_of
from ..networks.weights import load_weights, state_dict_from

#: Value of the option ``weights`` that asks for untrained networks of the true architecture.
RANDOM = "random"


@dataclass(frozen=True)
class SourceText:
    """A source as a user wrote it: ``scheme:place?option=value``.

    Attributes:
        schedule_given: whether the caller said which noise schedule the timesteps refer to (diffusion models only).
    """

    text: str
    scheme: str
    place: str
    options: Mapping[str, str]
    schedule_given: bool = False

    @property
    def random(self) -> bool:
        """True if the source asks for random weights."""
        return self.options.get("weights") == RANDOM

    def allow(self, *names: str) -> None:
        """Refuse options that this scheme does not have."""
        unknown = sorted(set(self.options) - set(names))
        if unknown:
            offered = ", ".join(names) or "none"
            raise ExportError(
                f"{self.text!r} has the unknown option {unknown[0]!r}; {self.scheme}: has {offered}",
                code="E-source-option-unknown",
            )

    def choice(self, name: str, *values: str) -> str:
        """The value of an option, one of ``values``; the first one if it is not given."""
        value = self.options.get(name, values[0])
        if value not in values:
            raise ExportError(
                f"{self.text!r}: {name}={value} is unknown; choose {', '.join(values)}", code="E-source-option-choice"
            )
        return value

    def number(self, name: str) -> int | None:
        """The value of an option as a positive whole number; None if it is not given."""
        value = self.options.get(name)
        if value is None:
            return None
        if not value.isdigit() or int(value) == 0:
            raise ExportError(
                f"{self.text!r}: {name}={value} must be a positive whole number", code="E-source-option-number"
            )
        return int(value)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """The value of an option as numbers separated by commas; None if it is not given."""
        text = self.options.get(name)
        if text is None:
            return None
        try:
            return tuple(float(part) for part in text.split(","))
        except ValueError:
            raise ExportError(
                f"{self.text!r}: {name}={text} must be numbers separated by commas", code="E-source-option-numbers"
            ) from None


@dataclass(frozen=True)
class ClassifierSource:
    """A classifier ``image [B, C, H, W] in [0, 1] -> logits [B, N]`` in eval mode.

    Attributes:
        model: the network, its preprocessing inside.
        origin: the text that it was resolved from, for the bundle's provenance; see `origin_of`.
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
    """An epsilon-model ``x [B, C, H, W] in [-1, 1], t [B] -> epsilon``, [B, 2C, H, W] with learned variance.

    Attributes:
        model: the network in the runtime's convention.
        origin: the text that it was resolved from, for the bundle's provenance; see `origin_of`.
        schedule: whose index ``t`` is; None: linear VP with T = 1000, unless the caller says otherwise.
        network: the family's own module inside ``model``; None: ``model`` itself.
        image: channels, height and width of the images it was trained on, where the source knows them.
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


#: Makes a classifier; the second argument is the size of the images of the diffusion model, (H, W), if known.
ClassifierResolver = Callable[[SourceText, "tuple[int, int] | None"], ClassifierSource]
#: Makes an epsilon-model whose timestep is the index of the given schedule.
DiffusionResolver = Callable[[SourceText, NoiseSchedule], DiffusionSource]


@dataclass
class _Registry:
    classifiers: dict[str, ClassifierResolver] = field(default_factory=dict)
    diffusions: dict[str, DiffusionResolver] = field(default_factory=dict)


#: Filled when the files of the sources are imported.
REGISTRY = _Registry()


def classifier_scheme(scheme: str) -> Callable[[ClassifierResolver], ClassifierResolver]:
    """Decorator: register a function that makes classifiers of ``scheme:...``."""

    def register(resolver: ClassifierResolver) -> ClassifierResolver:
        REGISTRY.classifiers[scheme] = resolver
        return resolver

    return register


def diffusion_scheme(scheme: str) -> Callable[[DiffusionResolver], DiffusionResolver]:
    """Decorator: register a function that makes diffusion models of ``scheme:...``."""

    def register(resolver: DiffusionResolver) -> DiffusionResolver:
        REGISTRY.diffusions[scheme] = resolver
        return resolver

    return register


def load_file(network: nn.Module, file: str | PathLike[str], entry: str | None = None) -> None:
    """Put the weights of a ``.safetensors`` or ``.pt`` file (``weights_only``) into a network, exactly: every key.

    Args:
        entry: the entry of the file to take, where it holds several sets of weights.

    Raises:
        CheckpointError: unreadable file, code in a pickle, or keys and shapes that do not fit; they are listed.
    """
    load_weights(network, state_dict_from(read_checkpoint(file), fspath(file), entry), fspath(file))


def weight_files(file: str | PathLike[str]) -> tuple[Path, ...]:
    """A file of weights, or the shards that an index names."""
    return tuple(shards_of(Path(file))) if Path(file).suffix == ".json" else (Path(file),)


def origin_of(source: SourceText, *files: str | PathLike[str], network: nn.Module | None = None) -> str:
    """A source in the provenance: its scheme, name and options, and the SHA-256 of its weights.

    Of paths only the last part stays: the folders of the exporting machine are nobody's business.

    Args:
        files: where the weights lie; the hash goes over one after the other.
        network: hashed instead where there is no file: names, shapes and values of its weights.
    """
    options = "&".join(f"{key}={_last_part(value)}" for key, value in source.options.items())
    text = f"{source.scheme}:{_last_part(source.place)}{'?' if options else ''}{options}"
    digest = hashlib.sha256()
    if not files:
        if network is None:
            return text
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for file in files:
        with Path(file).open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return f"{text} (sha256 {digest.hexdigest()})"


def _last_part(text: str) -> str:
    """``local-dir:/home/me/model`` -> ``local-dir:model``; a hub's ``owner/name`` stays whole."""
    head, colon, tail = text.partition(":")
    if colon and ("/" in head or head.endswith(".py")):  # path/to/file.py:function
        return f"{Path(head).name}:{tail}"
    if colon:
        return f"{head}:{_last_part(tail)}"
    is_path = text.startswith(("/", "./", "../", "~")) or "\\" in text or text.count("/") > 1 or Path(text).exists()
    return Path(text).name if is_path else text
