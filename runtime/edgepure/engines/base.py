"""What the rest of the runtime knows of an inference engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgepureError, ImageError
from ..rows.noise import RowNoise, make_together
from ..types import Float32


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
            raise EdgepureError(
                f"this {type(self).__name__} has been closed, so it cannot compute; open it anew",
                code="E-engine-closed",
            )


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
    An engine that computes on arrays of the host inherits the rest from `edgepure.engines.host.HostEngine`.

    Attributes:
        inputs, outputs: what the graph takes and gives, by name.
        provider: whose engine it is, as in `edgepure.engines.kinds`.
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
            raise ImageError(
                f"the graph takes the inputs {sorted(self.inputs)}, got {sorted(feeds)}", code="E-engine-input-names"
            )
        for name, spec in self.inputs.items():
            array = feeds[name]
            fits = len(array.shape) == len(spec.shape) and all(
                isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
            )
            if not fits or str(array.dtype) != spec.dtype:
                raise ImageError(
                    f"input {name!r}: expected {spec.dtype} {list(spec.shape)}, got {array.dtype} {list(array.shape)}",
                    code="E-engine-input",
                )
        if len({array.shape[:1] for array in feeds.values()}) > 1:
            counts = ", ".join(f"{name!r} {len(feeds[name])}" for name in self.inputs)
            raise ImageError(
                f"all inputs of a call have the same number of images; got {counts}", code="E-engine-batch"
            )
        if not len(next(iter(feeds.values()))):  # not every engine can: what one image gives says the shapes
            one = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in feeds.items()}
            return {name: array[:0] for name, array in self._run(one).items()}
        return self._run({name: np.ascontiguousarray(array) for name, array in feeds.items()})

    @abstractmethod
    def _run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Float32]: ...

    @abstractmethod
    def bound(self, batch: int) -> BoundCall:
        """This graph on buffers of its own for ``batch`` images; what measurements compare with."""

    @abstractmethod
    def stepper(self, slots: int = 8) -> Stepper:
        """The slots of this graph, which is a step graph; the engine must outlive them.

        ``slots``: images that share a call at most; an engine that was built for smaller batches gives fewer.
        """

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

    def expect_noise(self, wanted: Iterable[tuple[RowNoise, int]]) -> None:
        """These rows are loaded next: a chance to make their noises together."""
        make_together(wanted)

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
