"""Reading checkpoint files that people actually have, without ever running code from them.

A file is recognised by its first bytes, not by its name. Everything that can be wrong with it becomes one sentence.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from edgepure.errors import ExportError
from edgepure.machine.memory import available_memory


class CheckpointError(ExportError):
    """A checkpoint file cannot be read, or does not hold the weights of the network that was asked for."""

    code = "E-checkpoint"


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Content of a ``.pt``/``.pth`` file (``weights_only``: tensors, numbers, strings, lists, dicts) or of a
    ``.safetensors`` file (a dict of tensors), or of all the shards that an index (``.safetensors.index.json``) names.

    Raises:
        CheckpointError: no such file, a web page or a Git LFS pointer, truncated or damaged, a pickle with code in it,
            or larger than the memory.
    """
    file = Path(path)
    if not file.exists():
        raise CheckpointError(f"checkpoint {file} does not exist; check the path", code="E-checkpoint-missing")
    if not file.is_file():
        raise CheckpointError(
            f"checkpoint {file} is not a file; name the .pt, .pth or .safetensors file itself",
            code="E-checkpoint-folder",
        )
    if file.suffix == ".json":
        return _read_shards(file)
    try:
        with file.open("rb") as stream:
            head = stream.read(1024)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {file} cannot be read: {error.strerror}; check its permissions and the disk",
            code="E-checkpoint-read",
        ) from error
    _refuse_by_content(file, head)
    # torch.load itself goes by the name where it is given a path that ends in .safetensors.
    with _as_sentences(file):
        mapped = zipfile.is_zipfile(file) and file.suffix != ".safetensors"
    if not mapped:
        require_memory(file.stat().st_size, f"the contents of {file}")
    with _as_sentences(file):
        if head[8:9] == b"{":
            from safetensors.torch import load_file

            return load_file(file)
        with torch.serialization.safe_globals(_harmless_globals()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            # mmap: of a training checkpoint (optimiser, raw weights, EMA) only the tensors in use cost memory.
            if mapped:
                return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            with file.open("rb") as stream:
                return torch.load(stream, map_location="cpu", weights_only=True)


def shards_of(index: Path) -> list[Path]:
    """The files that an index of shards names, in the order of their names.

    Raises:
        CheckpointError: no such index, a name that leads out of its folder, or a shard that is not there.
    """
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names = sorted(set(content["weight_map"].values()))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is no index of shards of weights; download it again", code="E-checkpoint-index"
        ) from error
    outside = [name for name in names if not _is_file_name(name)]
    if outside or not names:
        raise CheckpointError(
            f"{index} names {outside[0]!r} as a shard, expected files beside it"
            if outside
            else f"{index} names no shards; download it again",
            code="E-checkpoint-shards",
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"the weights of {index} lie in {len(names)} files, and {missing[0]} is not beside it"
            f"{f' ({len(missing)} are missing)' if len(missing) > 1 else ''}; download it too",
            code="E-checkpoint-shard-missing",
        )
    return [index.parent / name for name in names]


def _is_file_name(name: object) -> bool:
    """Whether a text from an index can be the name of a file beside it."""
    if not isinstance(name, str) or not name.isprintable() or name in ("", ".", ".."):
        return False
    return Path(name).name == name and len(name.encode(errors="surrogatepass")) <= 255


def _read_shards(index: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for shard in shards_of(index):
        content = read_checkpoint(shard)
        if not isinstance(content, dict) or merged.keys() & content.keys():
            raise CheckpointError(
                f"{shard} is not a shard of weights, or repeats those of another one; download it again",
                code="E-checkpoint-shards",
            )
        merged.update(content)
    return merged


def require_memory(needed: int, what: str) -> None:
    """Raise CheckpointError if fewer than ``needed`` bytes are free on this machine."""
    free = available_memory()
    if free is not None and needed > free:
        raise CheckpointError(
            f"{what} need {needed / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} GiB are free; "
            "close other programs or use a machine with more memory",
            code="E-checkpoint-memory",
        )


def _refuse_by_content(file: Path, head: bytes) -> None:
    size = file.stat().st_size
    if size == 0:
        raise CheckpointError(f"checkpoint {file} is empty; download it again", code="E-checkpoint-empty")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        title = re.search(rb"<title>(.*?)</title>", head, re.DOTALL | re.IGNORECASE)
        named = f' ("{title[1].decode(errors="replace").strip()[:80]}")' if title else ""
        raise CheckpointError(
            f"checkpoint {file} is a web page{named}, not weights: the download link answered with a page, often a "
            "confirmation or an error; open the link in a browser and save the file it offers",
            code="E-checkpoint-web-page",
        )
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"checkpoint {file} is a Git LFS pointer; run `git lfs pull` to get the weights", code="E-checkpoint-lfs"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        raise CheckpointError(
            f"checkpoint {file} is a compressed archive; unpack it and name the file inside",
            code="E-checkpoint-compressed",
        )
    if not head.startswith((b"PK\x03\x04", b"\x80")) and head[8:9] != b"{":
        raise CheckpointError(
            f"checkpoint {file} is neither a PyTorch nor a safetensors file (it starts with {head[:8]!r}); "
            "check that it is the right file and that the download is complete",
            code="E-checkpoint-kind",
        )


@contextmanager
def _as_sentences(file: Path) -> Iterator[None]:
    """Turn what PyTorch and safetensors raise on a bad file into CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        _refuse_pickle(file, error)
    except MemoryError as error:
        raise CheckpointError(_no_room(file), code="E-checkpoint-memory") from error
    except Exception as error:  # zip, safetensors and legacy readers have no common class
        if "allocate memory" in str(error):
            raise CheckpointError(_no_room(file), code="E-checkpoint-memory") from error
        raise CheckpointError(
            f"checkpoint {file} is truncated or damaged ({file.stat().st_size:,} bytes): compare its size with the "
            "published one and download it again",
            code="E-checkpoint-damaged",
        ) from error


def _refuse_pickle(file: Path, error: pickle.UnpicklingError) -> NoReturn:
    text = str(error)
    if "truncated" in text or "Ran out of input" in text:
        raise CheckpointError(
            f"checkpoint {file} is truncated; download it again", code="E-checkpoint-cut-off"
        ) from error
    found = re.search(r"(?:GLOBAL|[Uu]nsupported (?:global|class):?)\s+`?([\w.]+)", text)
    found = re.search(r"GLOBAL ([\w.]+)", text) or found
    named = f" ({found[1]})" if found else ""
    raise CheckpointError(
        f"checkpoint {file} is a pickle that contains more than weights{named}: loading it would run code, so nothing "
        "was loaded; in the program that made it, save only the state dict (torch.save(net.state_dict(), file) or "
        "safetensors) and give its settings as a json file",
        code="E-checkpoint-code",
    ) from error


def _no_room(file: Path) -> str:
    return (
        f"checkpoint {file} ({file.stat().st_size / 2**30:.1f} GiB) does not fit into the memory of this machine; "
        "close other programs or use a machine with more memory"
    )


def _harmless_globals() -> list[Any]:
    """NumPy numbers, which training scripts leave in their checkpoints (best accuracy, learning rate)."""
    # The function that rebuilds a NumPy number; its module moved in NumPy 2, and files name either place.
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *kinds]
