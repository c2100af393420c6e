"""How the output of a classifier's block becomes a map [B, C, h, w].

Which axis is which cannot be told from numbers: 16 tokens may be 4 x 4 or 2 x 8 patches, and 7 x 7 x 7 values anything.
So the layout comes from the network: its class, its patch embedding as it ran in this very pass, or (of timm) the
library's own spatial maps, with which the block's output is compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgepure.errors import ExportError

#: More tokens than this before the patches (class token, registers) are not taken for such.
MOST_PREFIX_TOKENS = 16
_HELP = (
    "say it with the block's name (--blocks NAME@nchw, NAME@nhwc, or NAME@tokens:1:2x8 for one token before 2 x 8 "
    "patches), tap another block, or pass `transforms` with a function that makes a map [B, C, h, w]"
)


class Seen(Protocol):
    """What a pass of the network showed besides the outputs of the blocks."""

    def shape(self, module: str) -> tuple[int, ...] | None:
        """Shape of the output of a module that a layout asked to watch; None if it did not run."""


class Layout(Protocol):
    """Makes a map of a block's output."""

    @property
    def watched(self) -> tuple[str, ...]:
        """Modules whose outputs' shapes it needs."""

    def __call__(self, output: Tensor, seen: Seen) -> Tensor:
        """[B, C, h, w]."""

    def inside(self, prefix: str) -> Layout:
        """The same for a network under this name in a larger one."""


@dataclass(frozen=True)
class Maps:
    """The output is a map, channels first or last."""

    last: bool = False
    watched: tuple[str, ...] = ()

    def __call__(self, output: Tensor, seen: Seen) -> Tensor:
        return output.permute(0, 3, 1, 2) if self.last and output.ndim == 4 else output

    def inside(self, prefix: str) -> Layout:
        return self


@dataclass(frozen=True)
class Tokens:
    """The output is tokens [B, prefix + h * w, C], the patches row by row.

    Attributes:
        prefix: tokens before the patches.
        grid: h and w, or the module (a patch embedding) whose output in the same pass ends with them.
    """

    prefix: int
    grid: tuple[int, int] | str

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.grid,) if isinstance(self.grid, str) else ()

    def __call__(self, output: Tensor, seen: Seen) -> Tensor:
        if output.ndim == 4:  # a transformer that gives a map after all
            return output
        grid = self.grid
        if isinstance(grid, str):
            shape = seen.shape(grid)
            if shape is None or len(shape) != 4:
                raise ExportError(
                    f"the patch embedding {grid!r} gave no map, so the grid of the tokens is not known; {_HELP}",
                    code="E-layout-patches",
                )
            grid = (shape[2], shape[3])
        return token_map_to_grid(output, self.prefix, grid)

    def inside(self, prefix: str) -> Layout:
        return replace(self, grid=f"{prefix}.{self.grid}") if isinstance(self.grid, str) else self


@dataclass(frozen=True)
class HieraTokens:
    """Tokens of timm's Hiera, which stay in the order of its unrolled windows; the network itself puts them back."""

    network: nn.Module
    block: int
    watched: tuple[str, ...] = ()

    def __call__(self, output: Tensor, seen: Seen) -> Tensor:
        ordered: Tensor = self.network.reroll(output, self.block)  # type: ignore[operator]
        return ordered.permute(0, 3, 1, 2)

    def inside(self, prefix: str) -> Layout:
        return self


@dataclass(frozen=True)
class Told:
    """A block named by hand in a network of an unknown family: what the pass itself shows, or a refusal.

    Attributes:
        module: the block.
        first: the first convolution of the network, whose input tells height and width.
        embeddings: convolutions that cut an image into patches.
    """

    module: nn.Module
    first: str | None
    embeddings: tuple[str, ...]

    @property
    def watched(self) -> tuple[str, ...]:
        return (*self.embeddings, *([f"input of {self.first}"] if self.first is not None else []))

    def __call__(self, output: Tensor, seen: Seen) -> Tensor:
        if output.ndim == 3:
            return self._tokens(output, seen)
        if output.ndim != 4:
            return output  # no map: whoever needs one says so
        kinds = {type(m) for m in self.module.modules()}
        if not any(issubclass(k, (nn.LayerNorm, nn.Linear)) for k in kinds):
            return output  # PyTorch's convolutions, norms and pools have the channels first
        size = None if self.first is None else seen.shape(f"input of {self.first}")
        first, last = (
            (False, False)
            if size is None
            else (_in_proportion(output.shape[2:], size[2:]), _in_proportion(output.shape[1:3], size[2:]))
        )
        if first == last:
            raise ExportError(
                f"a block gives {list(output.shape)}, which may have its channels first or last; {_HELP}",
                code="E-layout-channels",
            )
        return output if first else output.permute(0, 3, 1, 2)

    def inside(self, prefix: str) -> Layout:
        first = None if self.first is None else f"{prefix}.{self.first}"
        return replace(self, first=first, embeddings=tuple(f"{prefix}.{name}" for name in self.embeddings))

    def _tokens(self, output: Tensor, seen: Seen) -> Tensor:
        count = int(output.shape[1])
        shapes = [shape for name in self.embeddings if (shape := seen.shape(name)) is not None and len(shape) == 4]
        fitting = {(s[2], s[3]) for s in shapes if 0 <= count - s[2] * s[3] <= MOST_PREFIX_TOKENS}
        if len(fitting) != 1:
            raise ExportError(
                f"a block gives {count} tokens, and no patch embedding of the network says how they lie in the image; "
                f"{_HELP}",
                code="E-layout-unknown",
            )
        grid = fitting.pop()
        return token_map_to_grid(output, count - grid[0] * grid[1], grid)


def written_layout(text: str) -> Layout:
    """The layout that a user writes behind a block's name: ``nchw``, ``nhwc``, ``tokens:PREFIX:HxW``.

    Raises:
        ExportError: it is written in another way.
    """
    if text in ("nchw", "nhwc"):
        return Maps(last=text == "nhwc")
    found = re.fullmatch(r"tokens:(\d+):(\d+)x(\d+)", text)
    if found is None:
        raise ExportError(
            f"{text!r} is no layout of a block; write nchw, nhwc or tokens:PREFIX:HxW (tokens:1:14x14)",
            code="E-layout-text",
        )
    return Tokens(int(found[1]), (int(found[2]), int(found[3])))


def told_by_the_pass(module: nn.Module, name: str) -> Told:
    """The layout of a block in a network of an unknown family."""
    modules = dict(module.named_modules())
    convolutions = [n for n, m in modules.items() if isinstance(m, nn.Conv2d)]
    patches = [n for n in convolutions if _cuts(modules[n])]
    return Told(modules[name], convolutions[0] if convolutions else None, tuple(patches))


def compared_layout(
    network: nn.Module, block: str, output: Any, maps: list[Tensor], embedding: tuple[str, Tensor] | None
) -> tuple[Layout, int | None] | None:
    """The layout under which a block's output is one of the library's own spatial maps, and which part of a tuple.

    Args:
        maps: what the library itself says, [B, C, h, w] each.
        embedding: the patch embedding and its map in the same pass.

    Returns:
        None if there is none.
    """
    seen = _Shapes({} if embedding is None else {embedding[0]: tuple(embedding[1].shape)})
    parts: list[tuple[int | None, Tensor]] = (
        [(None, output)]
        if isinstance(output, Tensor)
        else [(i, part) for i, part in enumerate(output) if isinstance(part, Tensor)]
        if isinstance(output, (tuple, list))
        else []
    )
    for index, part in parts:
        for wanted in maps:
            for layout in _readings(network, block, part, wanted, embedding):
                found = layout(part, seen)
                if found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-5, rtol=1e-4):
                    return layout, index
    return None


def _readings(
    network: nn.Module, block: str, part: Tensor, wanted: Tensor, embedding: tuple[str, Tensor] | None
) -> list[Layout]:
    h, w = int(wanted.shape[2]), int(wanted.shape[3])
    if part.ndim == 4:
        return [Maps(), Maps(last=True)]
    if part.ndim != 3:
        return []
    found: list[Layout] = []
    prefix = int(part.shape[1]) - h * w
    if 0 <= prefix <= MOST_PREFIX_TOKENS:
        if embedding is not None and tuple(embedding[1].shape[2:]) == (h, w):
            found.append(Tokens(prefix, embedding[0]))
        found.append(Tokens(prefix, (h, w)))
    number = block.rpartition(".")[2]
    if prefix == 0 and number.isdigit() and hasattr(network, "reroll"):
        found.insert(0, HieraTokens(network, int(number)))
    return found


def token_map_to_grid(act: Tensor, prefix_tokens: int, grid_hw: tuple[int, int]) -> Tensor:
    """Tokens [B, prefix_tokens + h*w, C] -> map [B, C, h, w], row by row.

    Raises:
        ExportError: the number of patches does not fit.
    """
    if act.ndim != 3:
        raise ExportError(f"expected tokens [B, n, C], got a tensor of shape {list(act.shape)}", code="E-layout-tokens")
    patches = int(act.shape[1]) - prefix_tokens
    h, w = grid_hw
    if patches < 1 or h * w != patches:
        raise ExportError(
            f"{patches} patch tokens (after {prefix_tokens} others) do not make a {h} x {w} grid; {_HELP}",
            code="E-layout-grid",
        )
    return torch.unflatten(act[:, prefix_tokens:].transpose(1, 2), 2, (h, w))


@dataclass(frozen=True)
class _Shapes:
    shapes: Mapping[str, tuple[int, ...]]

    def shape(self, module: str) -> tuple[int, ...] | None:
        return self.shapes.get(module)


def _in_proportion(found: torch.Size, image: tuple[int, ...]) -> bool:
    """Whether two numbers are the height and width of an image divided by about the same, at most itself."""
    (a, b), (h, w) = found, image
    return a <= h and b <= w and abs(a * w - b * h) < max(h, w)


def _cuts(convolution: nn.Module) -> bool:
    """Whether a convolution cuts an image into patches that do not overlap."""
    assert isinstance(convolution, nn.Conv2d)
    return convolution.kernel_size == convolution.stride and convolution.stride != (1, 1)
