"""What the rest of the runtime knows of an inference engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgepureError, ImageError, ProviderError

if TYPE_CHECKING:
    from ..rows.noise import RowNoise

Float32 = NDArray[np.float32]


#: Precisions that a provider has no kernels for: what to say.
_NO_KERNELS = {
    ("cpu", "bf16"): "the bf16 variant cannot run on the CPU by ONNX Runtime, which has no bfloat16 convolution there; "
    "choose precision fp32 or int8, or run it on OpenVINO (provider='openvino') or TensorRT",
    ("cuda", "bf16"): "the bf16 variant cannot run on ONNX Runtime's CUDA provider: ONNX Runtime opens no graph with "
    "bfloat16 convolutions of operator set 20; choose precision fp16 or fp32, or run it on TensorRT",
    ("openvino", "fp8"): "the fp8 variant cannot run on OpenVINO, which has no float8 kernels for the CPU; choose "
    "precision fp32, bf16 or int8, or run it on TensorRT",
}


def check_kernels(provider: str, precision: str) -> None:
    """Refuse a precision that an engine cannot compute in.

    Raises:
        ProviderError: it has no kernels for it.
    """
    if (provider, precision) in _NO_KERNELS:
        raise ProviderError(_NO_KERNELS[provider, precision])


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of a graph's input or output; a string in the shape is a dynamic axis."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class Closable:
    """What holds memory until it is closed. A subclass gives it back in `_close`."""

    _closed = False

    def close(self) -> None:
        """Give memory back; it cannot be used afterwards. Closing it again does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    def _close(self) -> None:
        """Give memory back; called once."""

    def check_open(self) -> None:
        """Raise EdgepureError if it has been closed."""
        if self._closed:
            raise EdgepureError(f"this {type(self).__name__} has been closed, so it cannot compute; open it anew")


class BoundCall(ABC):
    """A graph on buffers that are bound once, for one batch size: the fastest call that the engine can make.

    Attributes:
        inputs: the arrays that the call reads, to be written before it. Empty where they lie on a device: there they
            are zeros.
    """

    inputs: dict[str, Float32]

    @abstractmethod
    def __call__(self) -> None:
        """Start one call. On a device it may still be running when this returns."""

    def wait(self) -> None:
        """Return when all calls are done."""

    def close(self) -> None:
        """Give memory back."""


class Engine(Closable, ABC):
    """A compiled graph: named arrays in, named arrays out.

    The public half checks names and shapes once for all engines; an engine implements `_run`, for one image or more.
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    provider: str

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, Float32]:
        """Run the graph on arrays whose first axis is the batch. Returns new arrays; of no images, for no images.

        Raises:
            ImageError: an input is missing, unknown, or of another shape or dtype than the graph's, or has another
                number of images than the others.
            EdgepureError: it has been closed.
        """
        self.check_open()
        if set(feeds) != set(self.inputs):
            raise ImageError(f"the graph takes the inputs {sorted(self.inputs)}, got {sorted(feeds)}")
        for name, spec in self.inputs.items():
            array = feeds[name]
            fits = len(array.shape) == len(spec.shape) and all(
                isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
            )
            if not fits or str(array.dtype) != spec.dtype:
                raise ImageError(
                    f"input {name!r}: expected {spec.dtype} {list(spec.shape)}, got {array.dtype} {list(array.shape)}"
                )
        if len({array.shape[:1] for array in feeds.values()}) > 1:
            counts = ", ".join(f"{name!r} {len(feeds[name])}" for name in self.inputs)
            raise ImageError(f"all inputs of a call have the same number of images; got {counts}")
        if not len(next(iter(feeds.values()))):  # not every engine can: what one image gives says the shapes
            one = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in feeds.items()}
            return {name: array[:0] for name, array in self._run(one).items()}
        return self._run({name: np.ascontiguousarray(array) for name, array in feeds.items()})

    @abstractmethod
    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]: ...

    @abstractmethod
    def bound(self, batch: int) -> BoundCall:
        """This graph on buffers of its own for ``batch`` images; what measurements compare with."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Stepper(Closable, ABC):
    """Executes rows on a bank of slots. A slot holds the state of one image (x, ref, mask); the active slots are
    always ``0 .. active-1``. State stays where the engine computes; only coefficients and noise enter the loop.

    For each row the caller writes ``coeffs``, calls `load_noise` for the slots whose row draws noise, then `step`.

    Attributes:
        capacity: number of slots.
        image_shape: ``(C, H, W)``.
        coeffs: ``[capacity, K]`` float32, written by the caller before each step.
        noise: ``[capacity, C, H, W]`` float32, where `load_noise` puts noise that is made on the host.
        noise_out: the same for the second noise of the learned-variance variant, or None.
    """

    capacity: int
    image_shape: tuple[int, int, int]
    coeffs: Float32
    noise: Float32
    noise_out: Float32 | None

    @abstractmethod
    def admit(self, slot: int, x: Float32, ref: Float32, mask: Float32 | None) -> None:
        """Put an image into a slot. ``x``, ``ref``: ``[C, H, W]`` in model range; ``mask``: ``[1, H, W]`` or None."""

    @abstractmethod
    def move(self, source: int, target: int) -> None:
        """Copy a slot's state over another's, to keep the active slots contiguous."""

    def load_noise(self, slot: int, noise: RowNoise, row: int) -> None:
        """Make the noise of row ``row`` that of the next step of a slot. Not called for rows that draw none."""
        self.noise[slot] = noise.row(row)

    def load_noise_out(self, slot: int, noise: RowNoise, row: int) -> None:
        """The same for the second noise; only where ``noise_out`` is not None."""
        assert self.noise_out is not None
        self.noise_out[slot] = noise.out(row)

    @abstractmethod
    def step(self, active: int) -> None:
        """Execute the row in ``coeffs`` with the loaded noise for the slots ``0 .. active-1``.

        On a device it may still be running when this returns; what the caller wrote may be overwritten at once.
        """

    @abstractmethod
    def state(self, slot: int) -> Float32:
        """A copy of ``x`` of a slot, ``[C, H, W]``, after all steps."""

    def wait(self) -> None:
        """Return when all steps are done."""
