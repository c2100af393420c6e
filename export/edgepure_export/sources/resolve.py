"""Where networks come from: a text such as ``timm:resnet50`` becomes a PyTorch module, ready for export.

A source is ``scheme:place`` or ``scheme:place?option=value&option=value``; see `scheme` for what is behind one. The
command line and the Python interface go through the same two resolvers. The scheme ``python`` imports a module, so it
runs that module's code: give it only code that you trust. No other scheme of edgepure runs code from files.

Weights are never random in silence: only ``?weights=random`` makes them so, and the bundle's provenance says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypeVar

from edgepure.errors import ExportError, import_fault
from edgepure.machine.packages import extensions
from edgepure.rows.schedule import NoiseSchedule

from .scheme import REGISTRY, ClassifierResolver, ClassifierSource, DiffusionResolver, DiffusionSource, SourceText

#: Scheme -> the file of this folder that registers it.
_OWN = {
    "timm": "timm",
    "torchvision": "torchvision",
    "transformers": "transformers",
    "robustbench-wrn": "robustbench",
    "onnx": "onnx_file",
    "guided-diffusion": "checkpoint_files",
    "score-sde": "checkpoint_files",
    "edm": "checkpoint_files",
    "diffusers": "diffusers",
    "python": "python",
}
#: Schemes of one kind of network only; the others make both, or say themselves what they make.
_KINDS: Mapping[str, frozenset[str]] = {
    "classifier": frozenset({"timm", "torchvision", "transformers", "robustbench-wrn", "onnx", "python"}),
    "diffusion model": frozenset({"guided-diffusion", "score-sde", "edm", "diffusers", "python"}),
}
Kind = Literal["classifier", "diffusion model"]
S = TypeVar("S", ClassifierSource, DiffusionSource)


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
    parsed = parse_source(source, "classifier", weights)
    resolver: ClassifierResolver = _resolver(parsed, "classifier", REGISTRY.classifiers)
    return _in_eval_mode(resolver(parsed, image_size))


def resolve_diffusion(
    source: str, weights: str | PathLike[str] | None = None, schedule: NoiseSchedule | None = None
) -> DiffusionSource:
    """Make an epsilon-model.

    Args:
        source, weights: as `resolve_classifier`.
        schedule: the schedule whose index the runtime sends as ``t``; None: linear VP with T = 1000. A network that was
            trained with another one is called at its own index of the same noise level.
    """
    parsed = replace(parse_source(source, "diffusion model", weights), schedule_given=schedule is not None)
    resolver: DiffusionResolver = _resolver(parsed, "diffusion model", REGISTRY.diffusions)
    return _in_eval_mode(resolver(parsed, schedule or NoiseSchedule.linear()))


def resolve_task(source: str, image_size: tuple[int, int] | None = None, *, boxes: bool = False) -> ClassifierSource:
    """Make the network of a task: what it gives may be anything.

    Args:
        source: as `resolve_classifier`, or the name of an ONNX file, whose outputs are given by name.
        image_size: as `resolve_classifier`.
        boxes: it gives coordinates, so nothing may resize its images before it.

    Raises:
        ExportError: as `resolve_classifier`, or the images would be resized before a detector.
    """
    text = f"onnx:{source}" if ":" not in source and source.partition("?")[0].endswith(".onnx") else source
    parsed = parse_source(text, "classifier", None)
    if parsed.scheme == "onnx":
        made: ClassifierSource = import_module(".onnx_file", __package__).onnx_task(parsed, image_size)
        found = _in_eval_mode(made)
    else:
        found = resolve_classifier(text, None, image_size)
    if boxes and getattr(found.model, "resize", None) is not None:
        raise ExportError(
            f"{source}: its images are resized before the network, so its boxes are those of another size; export it "
            "for the bundle's image size, or scale the boxes in a module of your own (python:FILE.py:NAME)",
            code="E-task-size",
        )
    return found


def schemes(kind: Kind) -> tuple[str, ...]:
    """Every scheme that may make this kind of network, those of other packages and of this process among them."""
    registered = REGISTRY.classifiers if kind == "classifier" else REGISTRY.diffusions
    foreign = [name for name in extensions("edgepure.sources") if name not in _OWN]
    return tuple(sorted({*_KINDS[kind], *foreign, *registered}))


def may_be_followed(scheme: str) -> bool:
    """Whether a source that a stranger's bundle names may be resolved: ``python`` runs code, and so may the sources of
    other packages."""
    return scheme in _OWN and scheme != "python"


def parse_source(text: str, kind: Kind, weights: str | PathLike[str] | None = None) -> SourceText:
    """Take a source apart. ``weights`` stands for the option of that name."""
    if not isinstance(text, str):
        raise ExportError(
            f"a {kind} is named by a text such as timm:resnet50, got a {type(text).__name__}", code="E-source-type"
        )
    scheme, colon, rest = text.partition(":")
    known = schemes(kind)
    if not colon or not rest or scheme not in known:
        raise ExportError(
            f"{kind} {text!r}: expected scheme:name with one of the schemes {', '.join(known)}; for example "
            "python:package.module:function",
            code="E-source-scheme",
        )
    place, mark, query = rest, "", ""
    if not Path(rest).exists():  # a file name may contain a question mark
        place, mark, query = rest.partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if mark else ():
        name, equals, value = part.partition("=")
        if not equals or not name or not value or name in options:
            raise ExportError(
                f"{kind} {text!r}: expected ?option=value&option=value after the name, got {part!r}",
                code="E-source-options",
            )
        options[name] = value
    if weights is not None:
        if "weights" in options:
            raise ExportError(
                f"{kind} {text!r} names its weights, and so does the weights option; give them once",
                code="E-source-weights-twice",
            )
        options["weights"] = fspath(weights)
    if not place:
        raise ExportError(f"{kind} {text!r}: there is no name after {scheme}:", code="E-source-name")
    return SourceText(text, scheme, place, options)


def _resolver(source: SourceText, kind: Kind, registered: Mapping[str, Any]) -> Any:
    """The function behind a scheme; its file is imported now, if it has not been."""
    if source.scheme not in registered:
        foreign = extensions("edgepure.sources").get(source.scheme)
        try:
            if source.scheme in _OWN:
                import_module(f".{_OWN[source.scheme]}", __package__)
            elif foreign is not None:
                foreign.load()
        except ImportError as error:
            raise ExportError(
                f"{source.text!r}: {import_fault(f'the source {source.scheme}', error)}", code="E-source-import"
            ) from error
    if source.scheme not in registered:
        raise ExportError(
            f"{source.text!r}: the scheme {source.scheme} makes no {kind}; choose another scheme", code="E-source-makes"
        )
    return registered[source.scheme]


def _in_eval_mode(source: S) -> S:
    source.model.eval()
    return source
