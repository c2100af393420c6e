"""Cases: one number at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .common import WIDTH, Case, ints, weights


def small(x: Tensor) -> Tensor:
    return x.clamp(-0.9, 0.9)


def odd(x: Tensor) -> Tensor:
    """With infinities and a NaN where the image is far from 0."""
    return torch.where(x > 1.0, torch.inf, torch.where(x < -1.0, -torch.inf, torch.where(x.abs() < 0.2, torch.nan, x)))


def halves(x: Tensor) -> Tensor:
    """Multiples of one half, between which rounding decides."""
    return (x * 4.0).floor() / 2.0


ELEMENTS: dict[str, Case] = {
    "abs": torch.abs,
    "neg": torch.neg,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "square": torch.square,
    "log": lambda x: (x.abs() + 0.1).log(),
    "log1p": lambda x: x.abs().log1p(),
    "log2": lambda x: (x.abs() + 0.1).log2(),
    "log10": lambda x: (x.abs() + 0.1).log10(),
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: (x.abs() + 0.1).rsqrt(),
    "reciprocal": lambda x: (x.abs() + 0.1).reciprocal(),
    "power 2": lambda x: x**2,
    "power 3.0": lambda x: x**3.0,
    "power -1.5": lambda x: (x.abs() + 0.1) ** -1.5,
    "power of a tensor": lambda x: (x.abs() + 0.1) ** x,
    "2 to the power": lambda x: 2.0**x,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda x: small(x).tan(),
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "asin": lambda x: small(x).asin(),
    "acos": lambda x: small(x).acos(),
    "atan": torch.atan,
    "asinh": torch.asinh,
    "acosh": lambda x: (x.abs() + 1.1).acosh(),
    "atanh": lambda x: small(x).atanh(),
    "atan2": lambda x: torch.atan2(x, x.flip(3)),
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": lambda x: halves(x).round(),
    "round to decimals": lambda x: x.round(decimals=1),
    "trunc": torch.trunc,
    "frac": torch.frac,
    "sign": torch.sign,
    "fmod": lambda x: x.fmod(0.7),
    "remainder": lambda x: x.remainder(0.7),
    "remainder of a tensor": lambda x: x.remainder(x.flip(3).abs() + 0.5),
    "floor divide": lambda x: torch.div(x, 0.7, rounding_mode="floor"),
    "truncated divide": lambda x: torch.div(x, 0.7, rounding_mode="trunc"),
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "clamp from below": lambda x: x.clamp(min=0.1),
    "clamp by tensors": lambda x: x.clamp(-x.abs() / 2, x.abs() / 3),
    "minimum": lambda x: torch.minimum(x, x.flip(2)),
    "maximum": lambda x: torch.maximum(x, x.flip(2)),
    "lerp": lambda x: torch.lerp(x, x.flip(2), 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x.flip(2), value=0.3),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 0.5, value=0.3),
    "rsub": lambda x: 1.0 - x,
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(2)),
    "logit": lambda x: torch.logit(x.sigmoid(), eps=1e-3),
    "xlogy": lambda x: torch.xlogy(x, x.abs() + 0.1),
    "nan to numbers": lambda x: torch.nan_to_num(odd(x), 0.5, 9.0, -9.0),
    "is nan": lambda x: odd(x).isnan().float(),
    "is positive infinity": lambda x: odd(-x).isposinf().float() - odd(x).isneginf().float(),
    "is infinite": lambda x: odd(x).isinf().float(),
    "is finite": lambda x: odd(x).isfinite().float(),
    "through bfloat16": lambda x: x.bfloat16().float(),
    "through float16": lambda x: x.half().float(),
    "through float64": lambda x: (x.double() * 1.1).float(),
}

LOGIC: dict[str, Case] = {
    "greater": lambda x: (x > 0.3).float(),
    "at least": lambda x: (halves(x) >= 0.5).float(),
    "less": lambda x: (x < 0.3).float(),
    "at most": lambda x: (halves(x) <= 0.5).float(),
    "equal": lambda x: (halves(x) == 0.5).float(),
    "unequal": lambda x: (halves(x) != 0.5).float(),
    "and": lambda x: ((x > 0) & (x < 1)).float(),
    "or": lambda x: ((x > 1) | (x < 0)).float(),
    "xor": lambda x: ((x > 0) ^ (x.flip(3) > 0)).float(),
    "not": lambda x: (~(x > 0)).float(),
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "where, broadcast": lambda x: torch.where(x[:, :1] > 0, x, -1.0),
    "masked fill": lambda x: x.masked_fill(x > 0.5, -7.0),
    "all": lambda x: (x > -1.0).all(3).float(),
    "any": lambda x: (x > 1.0).any(1).float(),
    "to whole numbers": lambda x: (x * 3.0).to(torch.int32).float(),
    "whole floor divide": lambda x: (ints(x) // 3).float(),
    "whole remainder": lambda x: (ints(x) % 3).float(),
    "whole fmod": lambda x: ints(x).fmod(3).float(),
    "whole absolute": lambda x: ints(x).abs().float(),
    "whole clamp": lambda x: ints(x).clamp(-2, 3).float(),
    "whole sum": lambda x: ints(x).sum(3).float(),
    "whole maximum": lambda x: ints(x).amax(3).float(),
    "whole product": lambda x: (ints(x) * 3 - 1).float(),
    "whole sign": lambda x: ints(x).sign().float(),
    "bits and": lambda x: (ints(x).abs() & 6).float(),
    "bits or": lambda x: (ints(x).abs() | 6).float(),
    "bits xor": lambda x: (ints(x).abs() ^ 6).float(),
    "bits not": lambda x: (~ints(x)).float(),
    "bits up": lambda x: (ints(x).abs() << 2).float(),
    "bits down": lambda x: (ints(x).abs() >> 1).float(),
    "uint8": lambda x: ((x.sigmoid() * 255).to(torch.uint8)).float(),
}

ACTIVATIONS: dict[str, Case] = {
    "relu": F.relu,
    "relu6": lambda x: F.relu6(x * 5),
    "leaky relu": F.leaky_relu,
    "leaky relu 0.2": nn.LeakyReLU(0.2),
    "elu": F.elu,
    "elu 0.5": nn.ELU(0.5),
    "selu": F.selu,
    "celu": F.celu,
    "celu 2": nn.CELU(2.0),
    "gelu": F.gelu,
    "gelu by tanh": nn.GELU("tanh"),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": lambda x: F.hardswish(x * 3),
    "hardsigmoid": lambda x: F.hardsigmoid(x * 3),
    "hardtanh": F.hardtanh,
    "hardtanh -0.3 to 2": nn.Hardtanh(-0.3, 2.0),
    "softplus": F.softplus,
    "softplus, beta 2, threshold 3": nn.Softplus(2, 3),
    "softplus of large numbers": lambda x: F.softplus(x * 40),
    "softsign": F.softsign,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "tanhshrink": F.tanhshrink,
    "threshold": nn.Threshold(0.1, -3.0),
    "logsigmoid": F.logsigmoid,
    "prelu": lambda x: F.prelu(x, weights(4)),
    "prelu, one weight": lambda x: F.prelu(x, weights(1)),
    "glu over channels": lambda x: F.glu(x, 1),
    "softmax over channels": lambda x: x.softmax(1),
    "softmax over rows": lambda x: x.softmax(2),
    "softmax, last": lambda x: x.softmax(-1),
    "softmax of large numbers": lambda x: (x * 300).softmax(-1),
    "softmax with -inf": lambda x: x.masked_fill(x > 0.5, -torch.inf).softmax(-1),
    "log softmax": lambda x: x.log_softmax(1),
    "log softmax, large": lambda x: (x * 300).log_softmax(-1),
    "softmin": lambda x: F.softmin(x, 3),
    "hard softmax": lambda x: F.one_hot(x.argmax(3), WIDTH).float(),
}
