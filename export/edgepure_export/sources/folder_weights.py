"""The weights of a model folder as Hugging Face libraries write it: one file or shards with an index, in one precision
or several variants (``NAME.fp16.safetensors``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgepure.errors import ExportError

from ..networks.checkpoints import shards_of
from .scheme import SourceText

#: Variants that hold other weights than the file without a variant, and not the same ones in another precision.
_OTHER_WEIGHTS = re.compile(r"ema", re.IGNORECASE)


@dataclass(frozen=True)
class FolderWeights:
    """Where the weights of a folder lie.

    Attributes:
        file: the file of weights, or the index of its shards.
        variant: ``fp16`` of ``model.fp16.safetensors``; None: the usual file.
    """

    file: Path
    variant: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files with tensors."""
        return tuple(shards_of(self.file)) if self.file.suffix == ".json" else (self.file,)

    @property
    def safetensors(self) -> bool:
        """Whether they are safetensors and not pickles."""
        return ".safetensors" in self.file.name


def find_weights(folder: Path, names: tuple[str, ...], source: SourceText, entry: str | None = None) -> FolderWeights:
    """The weights of a folder.

    Args:
        names: of the usual files, the preferred one first, for example ``model.safetensors``.
        entry: the variant to take; None: the usual file, else the only variant.

    Raises:
        ExportError: no weights, several variants and no usual file, averaged weights beside raw ones, a missing shard.
    """
    found: dict[str | None, FolderWeights] = {}
    for name in names:
        stem, suffix = name.rsplit(".", 1)
        pattern = re.compile(rf"{re.escape(stem)}(?:\.(?P<a>[\w-]+))?\.{suffix}(?:\.index(?:\.(?P<b>[\w-]+))?\.json)?")
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = pattern.fullmatch(file.name)
            if match is None or re.search(r"-\d+-of-\d+$", match["a"] or ""):
                continue
            variant = match["a"] or match["b"]
            found.setdefault(variant, FolderWeights(file, variant))
    if entry is not None:
        if entry not in found:
            raise ExportError(
                f"{source.text}: {folder.name} has no variant {entry!r} of its weights; it has {_names(found)}",
                code="E-source-variant",
            )
        return found[entry]
    averaged = [v for v in found if v is not None and _OTHER_WEIGHTS.search(v)]
    same = [v for v in found if v not in averaged]
    if not found:
        raise ExportError(
            f"{source.text}: the folder {folder.name} has no {' or '.join(names)}, nor shards or a variant of it; "
            "download the weights too, or give ?weights=FILE",
            code="E-source-weights-missing",
        )
    if (averaged and same) or len(averaged) > 1:
        raise ExportError(
            f"{source.text}: {folder.name} holds several sets of weights, {_names(found)}; name one of them "
            f"(?entry={averaged[0]}, or ?weights=FILE)",
            code="E-source-entries",
        )
    if None in found:
        return found[None]
    if len(found) > 1:
        raise ExportError(
            f"{source.text}: {folder.name} holds its weights as {_names(found)}; name one of them "
            f"(?entry={next(iter(same))})",
            code="E-source-weights-kind",
        )
    return next(iter(found.values()))


def _names(found: dict[str | None, FolderWeights]) -> str:
    return ", ".join(weights.file.name for weights in found.values()) or "none"
