"""Cases: reductions, order, shapes, indices, products, attention, recurrence, Fourier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .common import HEIGHT, WIDTH, Case, ints, layer, tokens, weights

REDUCTIONS: dict[str, Case] = {
    "mean": lambda x: x.mean((2, 3)),
    "mean, kept": lambda x: x.mean(1, keepdim=True),
    "sum": lambda x: x.sum(3),
    "sum of all but the batch": lambda x: x.sum((1, 2, 3)),
    "maximum": lambda x: x.amax((2, 3)),
    "minimum": lambda x: x.amin(1, True),
    "product": lambda x: x.prod(3),
    "deviation": lambda x: x.std((2, 3)),
    "variance": lambda x: x.var(1, correction=0),
    "deviation and mean": lambda x: torch.cat(torch.std_mean(x, 3), 1),
    "norm 1": lambda x: x.norm(1, 3),
    "norm 2": lambda x: x.norm(2, (1, 2)),
    "norm inf": lambda x: torch.linalg.vector_norm(x, torch.inf, 3),
    "norm 3": lambda x: torch.linalg.vector_norm(x, 3.0, 3),
    "log sum exp": lambda x: (x * 50).logsumexp(1),
    "log sum exp with infinities": lambda x: torch.where(x > 1.5, -torch.inf, x * 90).logsumexp((2, 3), keepdim=True),
    "log sum exp of nothing": lambda x: x.masked_fill(x[:, :, :1] > 0, -torch.inf).logsumexp(2),
    "place of the maximum": lambda x: x.argmax(3).float(),
    "place of the minimum, kept": lambda x: x.argmin(2, True).float(),
    "equal maxima": lambda x: (x > 0).float().argmax(3).float(),
    "maximum and place": lambda x: x.max(2)[0] + x.max(2)[1],
    "minimum and place": lambda x: x.min(2)[0] - x.min(2)[1],
    "running sum": lambda x: x.cumsum(3),
    "running sum of channels": lambda x: x.cumsum(1),
    "largest": lambda x: torch.cat([x.topk(3, 3)[0], x.topk(3, 3)[1].float()], 3),
    "smallest": lambda x: x.topk(3, 2, largest=False)[0],
    "largest, of channels": lambda x: x.topk(2, 1)[1].float(),
    "sorted": lambda x: x.sort(3)[0],
    "sorted down": lambda x: x.sort(1, descending=True)[0],
    "order": lambda x: x.argsort(3).float(),
    "count": lambda x: (x > 0).sum(3).float(),
}


def assigned(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0, 2:5] = 7.0
    x[:, 1:3, :, ::2] += 1.0
    return x


def scattered(x: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(3, x.argsort(3), x)


SHAPES: dict[str, Case] = {
    "reshape": lambda x: x.reshape(-1, 36, 11),
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "cat": lambda x: torch.cat([x, x * 2], 1),
    "stack": lambda x: torch.stack([x, -x], 1),
    "split": lambda x: x.split((1, 3), 1)[1],
    "chunk": lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1],
    "uneven chunk": lambda x: x.chunk(2, 3)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "slice": lambda x: x[:, 1:3, ::2, -4:],
    "flip": lambda x: x.flip((2, 3)),
    "roll": lambda x: x.roll((2, -3), (2, 3)),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "repeat interleave": lambda x: x.repeat_interleave(2, 2),
    "tile": lambda x: x.tile((1, 1, 2, 1)),
    "select": lambda x: x.index_select(1, torch.tensor([2, 0, 2])),
    "indices": lambda x: x[:, [2, 0], [1, 5]],
    "indices, apart": lambda x: x[:, [2, 0], :, [1, 5]].movedim(0, 1),
    "negative indices": lambda x: x[:, torch.tensor([-1, -2])],
    "gather": lambda x: x.gather(3, x.argsort(3)),
    "assigned": assigned,
    "scattered": scattered,
    "scattered and added": lambda x: x.scatter_add(3, x.argsort(3), x),
    "index add": lambda x: x.index_add(1, torch.tensor([0, 3]), x[:, :2]),
    "index put": lambda x: x.index_put((torch.tensor([0]),), torch.tensor(3.0)),
    "lower triangle": lambda x: x.tril(1),
    "upper triangle": lambda x: x.triu(-2),
    "diagonal": lambda x: x.diagonal(dim1=2, dim2=3),
    "diagonal matrix": lambda x: x[..., 0].diag_embed(),
    "rotated": lambda x: x.rot90(1, (2, 3)),
    "one hot": lambda x: F.one_hot(ints(x).clamp(0, 6), 7).float(),
    "embedding": lambda x: F.embedding(ints(x[:, :, 0]).clamp(0, 6), weights(7, 5)),
    "positions": lambda x: x + torch.arange(WIDTH) / HEIGHT,
    "coordinates": lambda x: (
        x + sum(torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.arange(WIDTH) * 0.1, indexing="ij"))
    ),
    "eye": lambda x: x[..., :9] + torch.eye(9),
    "squeeze": lambda x: x.unsqueeze(2).squeeze(2),
    "batch of ones": lambda x: torch.ones(x.shape[0], 3) * x.mean((1, 2, 3))[:, None],
    "class token": lambda x: torch.cat([weights(1, 1, 44).expand(x.shape[0], -1, -1), tokens(x)], 1),
    "windows": lambda x: x.unfold(2, 3, 2),
    "batch shaped like": lambda x: torch.full_like(x, 0.3) + x,
    "buckets": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5])).float(),
    "interleaved": lambda x: torch.stack([-x[..., 1:11:2], x[..., 0:10:2]], -1).flatten(3),
}


def attend(x: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    return F.scaled_dot_product_attention(x * 2, x.flip(2), x, mask, scale=scale)


def rotary(x: Tensor) -> Tensor:
    x = x[..., :10]
    angle = torch.outer(torch.arange(9.0), 10.0 ** -torch.arange(0, 1, 0.2)).repeat(1, 2)
    turned = torch.cat([-x[..., 5:], x[..., :5]], -1)
    return x * angle.cos() + turned * angle.sin()


def self_attention() -> nn.Module:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(44, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = tokens(x)
            return self.inner(x, x, x)[0] + self.inner(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]

    return Attends()


def recurrent(kind: type[nn.RNNBase], **options: bool) -> Case:
    class Runs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = kind(44, 5, batch_first=True, **options)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(tokens(x))[0]  # type: ignore[no-any-return]

    return layer(Runs)


PRODUCTS: dict[str, Case] = {
    "linear": lambda x: F.linear(tokens(x), weights(7, 44), weights(7)),
    "linear of vectors": lambda x: F.linear(x.mean((2, 3)), weights(7, 4), weights(7)),
    "linear, no bias": lambda x: F.linear(x.flatten(1), weights(7, 396)),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "matmul, broadcast": lambda x: x @ weights(11, 3),
    "matmul from the left": lambda x: weights(5, 9) @ x,
    "matmul with a vector": lambda x: x @ weights(11),
    "bmm": lambda x: torch.bmm(x[:, 0], x[:, 1].transpose(1, 2)),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0, :, :9], x[:, 0], x[:, 1].mT, beta=0.3, alpha=2.0),
    "addmm": lambda x: torch.addmm(weights(7), x[:, 0, 0], weights(11, 7), beta=0.5, alpha=2.0),
    "einsum of channels": lambda x: torch.einsum("bchw,dc->bdhw", x, weights(5, 4)),
    "einsum of heads": lambda x: torch.einsum("bhid,bhjd->bhij", x, x),
    "einsum of positions": lambda x: torch.einsum("bhid,ijd->bhij", x, weights(9, 9, 11)),
    "einsum that sums": lambda x: torch.einsum("bchw,bchw->bc", x, x),
    "outer": lambda x: x[..., 0, :, None] * x[..., 0, None, :],
    "tensordot": lambda x: torch.tensordot(x, weights(11, 9, 3), ([3, 2], [0, 1])),
    "bilinear": lambda x: F.bilinear(x[:, 0, 0], x[:, 0, 1], weights(3, 11, 11)),
    "cosine": lambda x: F.cosine_similarity(x, x.flip(2), 1),
    "attention": attend,
    "attention, scaled": lambda x: attend(x, scale=0.7),
    "attention, added mask": lambda x: attend(x, weights(9, 9)),
    "attention, boolean mask": lambda x: attend(x, weights(9, 9) > -0.1),
    "attention, tokens": layer(self_attention),
    "rotary": rotary,
    "covariance attention": lambda x: (F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).mT).softmax(-1) @ x,
    "encoder": layer(
        lambda: nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(99, 3, 20, batch_first=True, norm_first=True))
    ),
}

RECURRENT: dict[str, Case] = {
    "LSTM": recurrent(nn.LSTM),
    "LSTM, both ways": recurrent(nn.LSTM, bidirectional=True),
    "GRU": recurrent(nn.GRU),
}

FOURIER: dict[str, Case] = {
    "there and back": lambda x: torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * 0.5, s=(9, 11), norm="ortho"),
    "one side": lambda x: torch.view_as_real(torch.fft.rfft(x, n=9, dim=2)).flatten(3),
    "longer": lambda x: torch.fft.fft(x, n=14).real,
    "and its inverse": lambda x: torch.fft.ifft2(torch.fft.fft2(x) * torch.fft.fft2(x.flip(3))).real,
    "magnitude": lambda x: torch.view_as_real(torch.fft.fft2(x)).square().sum(-1),
}
