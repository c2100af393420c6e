"""Reading checkpoint files that people actually have, without ever running code from them.

A file is recognised by its first bytes, not by its name. Everything that can be wrong with it becomes one sentence.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from edgepure.errors import ExportError
from edgepure.machine.memory import available_memory

StateDict = dict[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)

#: Names under which training scripts store the weights inside their checkpoint.
WRAPPINGS = ("state_dict", "model_state_dict", "model", "net")
#: Prefixes that DataParallel and wrapper modules put before every key.
PREFIXES = ("module.", "model.")
#: How many keys of one kind an error message shows.
SHOWN = 8


class CheckpointError(ExportError):
    """A checkpoint file cannot be read, or does not hold the weights of the network that was asked for."""


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Content of a ``.pt``/``.pth`` file (``weights_only``: tensors, numbers, strings, lists, dicts) or of a
    ``.safetensors`` file (a dict of tensors).

    Raises:
        CheckpointError: no such file, a web page or a Git LFS pointer, truncated or damaged, a pickle with code in it,
            or larger than the memory.
    """
    file = Path(path)
    if not file.exists():
        raise CheckpointError(f"checkpoint {file} does not exist; check the path")
    if not file.is_file():
        raise CheckpointError(f"checkpoint {file} is not a file; name the .pt, .pth or .safetensors file itself")
    try:
        with file.open("rb") as stream:
            head = stream.read(1024)
    except OSError as error:
        raise CheckpointError(f"checkpoint {file} cannot be read: {error.strerror}") from error
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


def state_dict_from(content: Any, source: str, key: str | None = None) -> StateDict:
    """The weights inside ``content``: unwraps `WRAPPINGS` and takes off `PREFIXES` that every key carries.

    Args:
        content: what `read_checkpoint` returned.
        source: the file, for messages.
        key: the entry to take where a file holds several sets of weights, such as "ema".

    Raises:
        CheckpointError: no weights found, or several and no ``key``.
    """
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            raise CheckpointError(f"{source} has no entry {key!r}; it holds {_listing(_top_level(content))}")
        content = content[key]
    for _ in WRAPPINGS:  # wrappers nest a few levels at most
        if _is_state_dict(content):
            break
        inner = [] if not isinstance(content, Mapping) else [k for k in WRAPPINGS if _is_wrapping(content.get(k))]
        if len(inner) > 1:
            raise CheckpointError(f"{source} holds several sets of weights, {_listing(inner)}; name one of them")
        if not inner:
            raise CheckpointError(
                f"{source} holds no weights: expected a dict of tensors, possibly under one of {_listing(WRAPPINGS)}, "
                f"but found {_listing(_top_level(content))}"
            )
        content = content[inner[0]]
    return strip_prefixes(dict(content))


def strip_prefixes(state: Mapping[str, Tensor]) -> StateDict:
    """Take off each of `PREFIXES` that all keys carry, however often."""
    state = dict(state)
    while state and any(all(k.startswith(p) for k in state) for p in PREFIXES):
        state = {k.split(".", 1)[1]: v for k, v in state.items()}
    return state


def load_weights(module: Module, state: Mapping[str, Tensor], source: str, family: str | None = None) -> Module:
    """Put ``state`` into ``module`` (which may be on the meta device), exactly: every key, every shape.

    Floating-point weights are copied to the module's own dtype (float16 files become float32). The module comes
    back in evaluation mode with gradients of its weights off.

    Args:
        family: scheme of ``module``, such as "guided-diffusion"; a checkpoint of another one is named in the message.

    Raises:
        CheckpointError: missing, unknown or misshapen keys (listed), NaN or infinity, or too little memory.
    """
    expected = module.state_dict()
    refuse_family(state, source, family)
    faults = [
        _fault("missing", [k for k in expected if k not in state]),
        _fault("unknown", [k for k in state if k not in expected]),
        _fault(
            "of another shape",
            [
                f"{k} {list(v.shape)} instead of {list(expected[k].shape)}"
                for k, v in state.items()
                if k in expected and v.shape != expected[k].shape
            ],
        ),
        _fault("that are no plain arrays", [k for k, v in state.items() if k in expected and not _is_plain(v)]),
    ]
    if any(faults):
        raise CheckpointError(
            f"the weights in {source} do not fit {type(module).__name__}: {'; '.join(f for f in faults if f)}. "
            "Check that preset and flags are those of this checkpoint"
        )
    require_memory(sum(v.numel() * v.element_size() for v in expected.values()), f"the weights of {source}")
    weights: StateDict = {}
    for key, target in expected.items():
        value = state[key].detach().to(torch.device("cpu"), target.dtype, copy=True).contiguous()
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{source} is damaged: {key} contains NaN or infinity; download it again")
        weights[key] = value
    module.load_state_dict(weights, strict=True, assign=True)
    return module.requires_grad_(False).eval()


def identify(keys: Iterable[str]) -> str | None:
    """The family whose key names these are, as the scheme that a user would type, or None."""
    names = set(keys)

    def some(pattern: str) -> bool:
        return any(re.search(pattern, k) for k in names)

    if some(r"(^|\.)all_modules\.\d"):
        return "score-sde"
    if some(r"(^|\.)input_blocks\.0\.0\.") and some(r"(^|\.)out\.2\.|label_emb|middle_block"):
        return "guided-diffusion"
    if some(r"(^|\.)map_layer0\.") and some(r"(^|\.)enc\.\d+x\d+_conv\."):
        return "edm"
    if some(r"(^|\.)block1\.layer\.0\.bn1\.") or some(r"(^|\.)layer\.0\.block\.0\.batchnorm_0\."):
        return "robustbench-wrn"
    if some(r"(^|\.)down_blocks\.0\.") and some(r"(^|\.)conv_in\."):
        return "diffusers"
    return None


def refuse_family(state: Mapping[str, Any], source: str, family: str | None) -> None:
    """Raise CheckpointError if the keys belong to another family than ``family`` (None: any)."""
    found = identify(state)
    if family is not None and found not in (None, family):
        raise CheckpointError(
            f"{source} is a checkpoint of the family {found}, not {family}; address it as {found}:{source}"
        )


def refuse_content_of_family(content: Any, source: str, family: str) -> None:
    """The same for what `read_checkpoint` returned: the weights may lie in it, or in one of its entries."""
    parts = [content, *content.values()] if isinstance(content, Mapping) else []
    states = [part for part in parts if isinstance(part, Mapping)]
    if not any(identify(map(str, state)) == family for state in states):
        for state in states:
            refuse_family({str(key): value for key, value in state.items()}, source, family)


def require_memory(needed: int, what: str) -> None:
    """Raise CheckpointError if fewer than ``needed`` bytes are free on this machine."""
    free = available_memory()
    if free is not None and needed > free:
        raise CheckpointError(
            f"{what} need {needed / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} GiB are free; "
            "close other programs or use a machine with more memory"
        )


def _refuse_by_content(file: Path, head: bytes) -> None:
    size = file.stat().st_size
    if size == 0:
        raise CheckpointError(f"checkpoint {file} is empty; download it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        title = re.search(rb"<title>(.*?)</title>", head, re.DOTALL | re.IGNORECASE)
        named = f' ("{title[1].decode(errors="replace").strip()[:80]}")' if title else ""
        raise CheckpointError(
            f"checkpoint {file} is a web page{named}, not weights: the download link answered with a page, often a "
            "confirmation or an error; open the link in a browser and save the file it offers"
        )
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"checkpoint {file} is a Git LFS pointer; run `git lfs pull` to get the weights")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        raise CheckpointError(f"checkpoint {file} is a compressed archive; unpack it and name the file inside")
    if not head.startswith((b"PK\x03\x04", b"\x80")) and head[8:9] != b"{":
        raise CheckpointError(
            f"checkpoint {file} is neither a PyTorch nor a safetensors file (it starts with {head[:8]!r}); "
            "check that it is the right file and that the download is complete"
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
        raise CheckpointError(_no_room(file)) from error
    except Exception as error:  # zip, safetensors and legacy readers have no common class
        if "allocate memory" in str(error):
            raise CheckpointError(_no_room(file)) from error
        raise CheckpointError(
            f"checkpoint {file} is truncated or damaged ({file.stat().st_size:,} bytes): compare its size with the "
            "published one and download it again"
        ) from error


def _refuse_pickle(file: Path, error: pickle.UnpicklingError) -> NoReturn:
    text = str(error)
    if "truncated" in text or "Ran out of input" in text:
        raise CheckpointError(f"checkpoint {file} is truncated; download it again") from error
    found = re.search(r"(?:GLOBAL|[Uu]nsupported (?:global|class):?)\s+`?([\w.]+)", text)
    found = re.search(r"GLOBAL ([\w.]+)", text) or found
    named = f" ({found[1]})" if found else ""
    raise CheckpointError(
        f"checkpoint {file} is a pickle that contains more than weights{named}: loading it would run code, so nothing "
        "was loaded; in the program that made it, save only the state dict (torch.save(net.state_dict(), file) or "
        "safetensors) and give its settings as a json file"
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


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _is_plain(value: Tensor) -> bool:
    """Whether the numbers of a tensor are all there: not sparse, quantised, complex or without data."""
    strided = value.layout == torch.strided and not value.is_quantized
    return strided and not value.is_meta and not value.is_complex()


def _is_wrapping(value: Any) -> bool:
    return isinstance(value, Mapping) and any(_is_state_dict(v) for v in (value, *map(value.get, WRAPPINGS)))


def _top_level(content: Any) -> Sequence[str]:
    if isinstance(content, Mapping):
        return [str(k) for k in content]
    return [f"a {type(content).__name__}"]


def _fault(kind: str, keys: Sequence[str]) -> str:
    return f"{len(keys)} {kind}: {_listing(keys)}" if keys else ""


def _listing(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more
