"""The arithmetic of quantization: scales, zero points and rounding of int8, uint8 and fp8 (E4M3)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

#: Lowest and highest value of a tensor.
Range = tuple[float, float]

MAX = {ir.DataType.INT8: 127.0, ir.DataType.UINT8: 255.0, ir.DataType.FLOAT8E4M3FN: 448.0}
#: A scale below this is raised to it. Of fp16 scales: the smallest normal number. Of fp32 scales: small enough for any
#: layer, and large enough that neither 1 / scale nor the product of two scales leaves fp32.
SMALLEST_FP16, SMALLEST_FP32 = 2.0**-14, 2.0**-60


def parameters(bounds: Range, kind: ir.DataType, smallest: float = SMALLEST_FP32) -> tuple[float, float]:
    """Scale and zero point of an activation. Zero is exact in all types: padding adds zeros."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    if kind == ir.DataType.UINT8:
        scale = float(np.float32(max((high - low) / 255.0, smallest)))
        return scale, float(np.clip(np.rint(-low / scale), 0, 255))
    return float(np.float32(max(max(-low, high) / MAX[kind], smallest))), 0.0


def fake_quantized(values: NDArray[np.float32], bounds: Range, kind: ir.DataType) -> NDArray[np.float32]:
    """``values`` after quantization to ``kind`` with these bounds and back, float32."""
    scale, zero = parameters(bounds, kind)
    rounded = rounded_to(values / scale + zero, kind).astype(np.float32)
    return np.asarray((rounded - np.float32(zero)) * np.float32(scale), np.float32)


def rounded_to(values: NDArray[np.floating], kind: ir.DataType) -> np.ndarray:
    """To the nearest value of the type, out of range values to its ends."""
    if kind == ir.DataType.FLOAT8E4M3FN:
        return np.asarray(np.clip(values, -448.0, 448.0)).astype(kind.numpy())
    low = 0.0 if kind == ir.DataType.UINT8 else -127.0 if kind == ir.DataType.INT8 else None
    return np.asarray(np.clip(np.rint(values), low, MAX[kind])).astype(kind.numpy())
