"""From the content of a weights file to the weights of a network: what training scripts, wrappers and older releases do
to the names of weights is undone, and what could mean two things is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .checkpoints import CheckpointError, require_memory

StateDict = dict[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)

#: Names under which training scripts store the weights inside their checkpoint.
WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights")
#: Prefixes that DataParallel and wrapper modules put before every key.
PREFIXES = ("module.", "model.", "net.", "network.")
#: What PyTorch itself puts between the names of modules: torch.compile, FSDP, activation checkpointing.
_INSERTED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: Names of averaged weights, beside which the raw ones lie.
_AVERAGED = re.compile(r"(?:^|[_.-])(?:ema|swa|avg|averaged?|shadow)(?:$|[_.-])|^ema|ema$", re.IGNORECASE)
#: Counters that an averaging wrapper keeps among the weights.
_COUNTERS = frozenset({"n_averaged", "num_updates", "initted", "step"})
#: How many keys of one kind an error message shows.
SHOWN = 8


def state_dict_from(content: Any, source: str, key: str | None = None) -> StateDict:
    """The weights inside ``content``: unwraps `WRAPPINGS` and takes off `PREFIXES` that every key carries.

    Args:
        content: what `read_checkpoint` returned.
        source: the file, for messages.
        key: the entry to take where a file holds several sets of weights, such as "ema": a name, or names parted by
            dots, or what the names of its weights begin with.

    Raises:
        CheckpointError: no weights found, or several sets (raw and averaged ones) and no ``key``.
    """
    if key is not None:
        content = _entry(content, source, key)
    for _ in WRAPPINGS:  # wrappers nest a few levels at most
        if is_state_dict(content):
            break
        sets = _sets(content)
        if len(sets) > 1:
            raise CheckpointError(
                f"{source} holds several sets of weights, {listing(sets)}; name one of them (?entry={sets[-1]})",
                code="E-checkpoint-entries",
            )
        if not sets:
            raise CheckpointError(
                f"{source} holds no weights: expected a dict of tensors, possibly under one of {listing(WRAPPINGS)}, "
                f"but found {listing(_top_level(content))}",
                code="E-checkpoint-no-weights",
            )
        content = content[sets[0]]
    state = _without_counters({_INSERTED.sub("", str(k)): v for k, v in dict(content).items()})
    if key is None:
        _refuse_averaged_beside_raw(state, source)
    return strip_prefixes(state)


def strip_prefixes(state: Mapping[str, Tensor]) -> StateDict:
    """Take off each of `PREFIXES` that all keys carry, however often."""
    state = dict(state)
    while state and any(all(k.startswith(p) for k in state) for p in PREFIXES):
        state = {k.split(".", 1)[1]: v for k, v in state.items()}
    return state


def load_weights(module: Module, state: Mapping[str, Tensor], source: str, family: str | None = None) -> Module:
    """Put ``state`` into ``module`` (which may be on the meta device), exactly: every key, every shape.

    Floating-point weights are copied to the module's own dtype (float16 files become float32). The module comes
    back in evaluation mode with gradients of its weights off. ``num_batches_tracked``, which evaluation does not use
    and old files do not have, may be missing; so may one prefix that all keys of the file have, or all of the module.

    Args:
        family: scheme of ``module``, such as "guided-diffusion"; a checkpoint of another one is named in the message.

    Raises:
        CheckpointError: missing, unknown or misshapen keys (listed), NaN or infinity, or too little memory.
    """
    expected = module.state_dict()
    refuse_family(state, source, family)
    state = _fitted(state, expected)
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
        advice = "preset and flags are those of this checkpoint" if family else "the file is one of this very network"
        raise CheckpointError(
            f"the weights in {source} do not fit {type(module).__name__}: {'; '.join(f for f in faults if f)}. "
            f"Check that {advice}",
            code="E-checkpoint-keys",
        )
    require_memory(sum(v.numel() * v.element_size() for v in expected.values()), f"the weights of {source}")
    weights: StateDict = {}
    for key, target in expected.items():
        value = state[key].detach().to(torch.device("cpu"), target.dtype, copy=True).contiguous()
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{source} is damaged: {key} contains NaN or infinity; download it again",
                code="E-checkpoint-not-finite",
            )
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
            f"{source} is a checkpoint of the family {found}, not {family}; address it as {found}:{source}",
            code="E-checkpoint-family",
        )


def refuse_content_of_family(content: Any, source: str, family: str) -> None:
    """The same for what `read_checkpoint` returned: the weights may lie in it, or in one of its entries."""
    parts = [content, *content.values()] if isinstance(content, Mapping) else []
    states = [part for part in parts if isinstance(part, Mapping)]
    if not any(identify(map(str, state)) == family for state in states):
        for state in states:
            refuse_family({str(key): value for key, value in state.items()}, source, family)


def is_state_dict(value: Any) -> bool:
    """Whether this is a dict of tensors under names."""
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def listing(names: Sequence[str]) -> str:
    """The first `SHOWN` of some names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more


def _entry(content: Any, source: str, key: str) -> Any:
    """One entry of a checkpoint: by its name, by a path of names, or by what the names of its weights begin with."""
    if isinstance(content, Mapping) and key in content:
        return content[key]
    first, dot, rest = key.partition(".")
    if dot and isinstance(content, Mapping) and isinstance(content.get(first), Mapping):
        return _entry(content[first], source, rest)
    for state in _inside(content):
        mine = {k[len(key) + 1 :]: v for k, v in state.items() if k.startswith(f"{key}.")}
        if mine:
            return mine
    raise CheckpointError(
        f"{source} has no entry {key!r}; it holds {listing(_top_level(content))}", code="E-checkpoint-entry"
    )


def _inside(content: Any, depth: int = 3) -> Iterator[StateDict]:
    if is_state_dict(content):
        yield {_INSERTED.sub("", k): v for k, v in content.items()}
    elif isinstance(content, Mapping) and depth:
        for value in content.values():
            yield from _inside(value, depth - 1)


def _sets(content: Any) -> list[str]:
    """Names of the entries of a checkpoint that hold weights, averaged ones last."""
    if not isinstance(content, Mapping):
        return []
    raw = [k for k in WRAPPINGS if _is_wrapping(content.get(k))]
    averaged = [k for k, v in content.items() if isinstance(k, str) and k not in raw and _is_averaged(k, v)]
    if not raw and not averaged:  # weights under a name of the script's own
        raw = [k for k, v in content.items() if isinstance(k, str) and len(v if is_state_dict(v) else ()) > 1]
    return raw + averaged


def _is_averaged(name: str, value: Any) -> bool:
    """Averaged weights: a dict of them, or what an averaging class keeps (a list of tensors without names)."""
    if not _AVERAGED.search(name):
        return False
    if isinstance(value, Mapping):
        return any(isinstance(v, Tensor) and v.ndim for v in value.values()) or any(
            _is_averaged("ema", v) for v in value.values() if isinstance(v, (Mapping, list))
        )
    return isinstance(value, list) and any(isinstance(v, Tensor) and v.ndim for v in value)


def _refuse_averaged_beside_raw(state: Mapping[str, Tensor], source: str) -> None:
    """One dict may hold both sets under two prefixes (``online_model.``, ``ema_model.``)."""
    groups: dict[str, set[str]] = {}
    for key in state:
        first, _, rest = key.partition(".")
        groups.setdefault(first, set()).add(rest)
    for name, keys in ((n, k) for n, k in groups.items() if _AVERAGED.search(n)):
        others = {other for other, theirs in groups.items() if other != name and len(keys & theirs) * 2 > len(keys)}
        # LitEma writes its names without dots
        flat = {
            other
            for other, theirs in groups.items()
            if other != name and len(keys & {k.replace(".", "") for k in theirs}) * 2 > len(keys)
        }
        if others or flat:
            sets = [*sorted(others | flat), name]
            raise CheckpointError(
                f"{source} holds several sets of weights, {listing(sets)}; name one of them (?entry={sets[-1]})",
                code="E-checkpoint-entries",
            )


def _without_counters(state: StateDict) -> StateDict:
    """Leave out the counters of an averaging wrapper, which stand beside weights that have a prefix in common."""
    counters = {k for k, v in state.items() if k in _COUNTERS and v.numel() == 1}
    others = [k for k in state if k not in counters]
    if counters and others and len({k.partition(".")[0] for k in others}) == 1:
        return {k: state[k] for k in others}
    return dict(state)


def _fitted(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state under the names of the module, where they differ by one prefix, and with the counters of its norms."""
    needed = {k for k in expected if not k.endswith("num_batches_tracked")}
    if not needed <= state.keys():
        for candidate in (_shorter(state), {f"{_common(expected)}{k}": v for k, v in state.items()}):
            if needed <= candidate.keys():
                state = candidate
                break
    counters = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked") and k not in state}
    return {**state, **{k: torch.zeros_like(v, device="cpu") for k, v in counters.items()}} if counters else state


def _shorter(state: Mapping[str, Tensor]) -> StateDict:
    """Without the prefix that all keys have."""
    prefix = _common(state)
    return {k[len(prefix) :]: v for k, v in state.items()}


def _common(state: Mapping[str, Tensor]) -> str:
    firsts = {k.partition(".")[0] for k in state}
    return f"{firsts.pop()}." if len(firsts) == 1 and all("." in k for k in state) else ""


def _is_plain(value: Tensor) -> bool:
    """Whether the numbers of a tensor are all there: not sparse, quantised, complex or without data."""
    strided = value.layout == torch.strided and not value.is_quantized
    return strided and not value.is_meta and not value.is_complex()


def _is_wrapping(value: Any) -> bool:
    return isinstance(value, Mapping) and any(is_state_dict(v) for v in (value, *map(value.get, WRAPPINGS)))


def _top_level(content: Any) -> Sequence[str]:
    if isinstance(content, Mapping):
        return [str(k) for k in content]
    return [f"a {type(content).__name__}"]


def _fault(kind: str, keys: Sequence[str]) -> str:
    return f"{len(keys)} {kind}: {listing(keys)}" if keys else ""
