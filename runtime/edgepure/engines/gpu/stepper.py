"""The slots of a step graph on a GPU, for every engine that computes there.

The state of the slots never leaves the GPU. What a row needs from the host (its coefficients, and where its noise lies
in the stream) crosses the bus in one copy from page-locked memory; the noise is made on the GPU. `step` only puts
work on a stream, so the host prepares the next row while the GPU executes this one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, ProviderError
from ...machine.nvidia import Gpu
from ...rows.noise import RowNoise
from ...rows.plan import COLUMNS, LEARNED_COLUMNS
from ...types import Float32
from ..base import Stepper
from .cuda import DeviceBuffer, Event, PinnedArray, Stream, on_device, to_device, to_host
from .noise import COUNTER_WORDS, DeviceNoise, counter_array

#: Rows that the host may be ahead of the GPU.
STAGES = 3


class _Stage:
    """Page-locked memory of one row on its way to the GPU; it may be written again when its event has passed."""

    def __init__(self, words: int) -> None:
        self.words = PinnedArray((words,), np.uint32)
        self.noise: dict[str, PinnedArray] = {}  # made when noise from the host is needed first
        self.passed = Event()

    def close(self) -> None:
        self.passed.close()
        for array in (self.words, *self.noise.values()):
            array.close()


class DeviceStepper(Stepper):
    """State, noise and coefficients on the GPU; a subclass executes the network in `_enqueue_network`.

    Batches have one of a few sizes (the buckets); a step of fewer images uses the next larger one, and what its last
    lanes compute is never read.

    Attributes:
        noise_on_device: False if the noise is made by the host and copied; `why_not` says why.
        lanes: size of the largest bucket in use.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        capacity: int,
        batches: Sequence[int],
        stream: Stream,
        *,
        learned: bool,
        noise: DeviceNoise | None,
        why_not: str = "",
    ) -> None:
        """Allocate everything.

        Args:
            image_shape: ``(C, H, W)``.
            capacity: number of slots that is asked for; at most the largest batch is given.
            batches: the buckets, ascending.
            stream: everything is put on it.
            learned: the graph is ``step_learned``.
            noise: makes noise on the GPU; None: noise comes from the host, for the reason ``why_not``.
        """
        if capacity < 1 or not batches:
            raise ConfigError(
                f"{capacity} slots with the batch sizes {list(batches)}: expected at least one of each",
                code="E-engine-slots",
            )
        self.capacity, self.image_shape = min(capacity, batches[-1]), image_shape
        self._buckets = [b for b in batches if b < self.capacity]
        self._buckets.append(next(b for b in batches if b >= self.capacity))
        self.lanes = self._buckets[-1]
        self._stream, self._device_noise = stream, noise
        self.noise_on_device, self.why_not = noise is not None, why_not
        channels, height, width = image_shape
        self._elements = channels * height * width
        self._columns = len(COLUMNS) + (len(LEARNED_COLUMNS) if learned else 0)

        self._buffers: list[DeviceBuffer] = []
        self._x = [self._allocate(self._elements) for _ in range(2)]
        self._now = 0
        self._ref, self._mask = self._allocate(self._elements), self._allocate(height * width)
        self._noises = {"noise": self._allocate(self._elements)}
        if learned:
            self._noises["noise_out"] = self._allocate(self._elements)
        # The table of a row: coefficients of all lanes, then for each noise the counters of all lanes.
        self._table_words = self.lanes * (self._columns + COUNTER_WORDS * len(self._noises))
        self._table = self._allocate(self._table_words // self.lanes)

        self.coeffs = np.zeros((self.capacity, self._columns), np.float32)
        self._host = {name: np.zeros((self.capacity, *image_shape), np.float32) for name in self._noises}
        self._from_host: dict[str, set[int]] = {name: set() for name in self._noises}
        self._counters = {name: counter_array(self.lanes) for name in self._noises}
        # Writing here would not be noticed: `load_noise` is the way.
        self.noise = _read_only(self._host["noise"])
        self.noise_out = _read_only(self._host["noise_out"]) if learned else None
        self._stages = [_Stage(self._table_words) for _ in range(STAGES)]
        self._stage = 0
        self._result = PinnedArray(image_shape)

    def _allocate(self, words: int) -> DeviceBuffer:
        buffer = DeviceBuffer(self.lanes * words * 4, self._stream)
        self._buffers.append(buffer)
        return buffer

    # ---- the protocol -----------------------------------------------------------------------------------------------

    def admit(self, slot: int, x: Float32, ref: Float32, mask: Float32 | None) -> None:
        self.check_open()
        _, height, width = self.image_shape
        inside = np.ones((1, height, width), np.float32) if mask is None else mask
        for buffer, array in ((self._x[self._now], x), (self._ref, ref), (self._mask, inside)):
            part = np.ascontiguousarray(array, np.float32)
            to_device(buffer.pointer + slot * part.nbytes, part, self._stream)

    def move(self, source: int, target: int) -> None:
        for buffer in (self._x[self._now], self._ref, self._mask):
            size = buffer.nbytes // self.lanes
            on_device(buffer.pointer + target * size, buffer.pointer + source * size, size, self._stream)

    def expect_noise(self, wanted: Iterable[tuple[RowNoise, int]]) -> None:
        if self._device_noise is None:
            super().expect_noise(wanted)

    def load_noise(self, slot: int, noise: RowNoise, row: int) -> None:
        self._load("noise", slot, noise, row)

    def load_noise_out(self, slot: int, noise: RowNoise, row: int) -> None:
        self._load("noise_out", slot, noise, row)

    def _load(self, name: str, slot: int, noise: RowNoise, row: int) -> None:
        out = name == "noise_out"
        if self._device_noise is not None and self._device_noise.can_make(noise):
            self._counters[name][slot] = self._device_noise.counter(noise, row, out=out)
            self._from_host[name].discard(slot)
        else:
            self._host[name][slot] = noise.out(row) if out else noise.row(row)
            self._from_host[name].add(slot)
            self._counters[name][slot] = 0

    def step(self, active: int) -> None:
        self.check_open()
        self._upload()
        self._launch(next(b for b in self._buckets if b >= active), self._now)
        self._now = 1 - self._now

    def state(self, slot: int) -> Float32:
        self.check_open()
        source = self._x[self._now].pointer + slot * self._elements * 4
        to_host(self._result.array, source, self._stream)
        self._stream.wait()
        x: Float32 = self._result.array.copy()
        return x

    def wait(self) -> None:
        self._stream.wait()

    def _close(self) -> None:
        self._stream.wait()
        for stage in self._stages:
            stage.close()
        for buffer in self._buffers:
            buffer.close()
        self._result.close()
        if self._device_noise is not None:
            self._device_noise.close()

    # ---- one row ----------------------------------------------------------------------------------------------------

    def _upload(self) -> None:
        """Send what the row needs from the host."""
        stage = self._stages[self._stage]
        self._stage = (self._stage + 1) % STAGES
        stage.passed.wait()  # the GPU has read what was here before
        words = stage.words.array
        end = self.capacity * self._columns
        words[:end] = self.coeffs.view(np.uint32).reshape(-1)
        start = self.lanes * self._columns
        for counters in self._counters.values():
            words[start : start + counters.size] = counters.reshape(-1)
            start += counters.size
            counters[:] = 0
        to_device(self._table.pointer, words, self._stream)
        for name, slots in self._from_host.items():
            for slot in sorted(slots):
                self._upload_noise(stage, name, slot)
            slots.clear()
        stage.passed.record(self._stream)

    def _upload_noise(self, stage: _Stage, name: str, slot: int) -> None:
        if name not in stage.noise:
            stage.noise[name] = PinnedArray(self._host[name].shape)
        part = stage.noise[name].array[slot]
        part[...] = self._host[name][slot]
        to_device(self._noises[name].pointer + slot * part.nbytes, part, self._stream)

    def _launch(self, bucket: int, now: int) -> None:
        """Execute a row for ``bucket`` lanes, from state ``now`` to the other one."""
        self._enqueue(bucket, now)

    def _enqueue(self, bucket: int, now: int) -> None:
        """Put the noise and the network of a row on the stream. What this does can be captured in a CUDA graph."""
        if self._device_noise is not None:
            counters = self._table.pointer + self.lanes * self._columns * 4
            for buffer in self._noises.values():
                self._device_noise.fill(buffer.pointer, counters, bucket, self._elements, self._stream)
                counters += self.lanes * COUNTER_WORDS * 4
        self._enqueue_network(bucket, now)

    @abstractmethod
    def _enqueue_network(self, bucket: int, now: int) -> None:
        """Put one call of the network on the stream, with the addresses of `_addresses`."""

    def _addresses(self, now: int) -> dict[str, int]:
        """Where the inputs and the output of the graph lie, by name."""
        return {
            "x": self._x[now].pointer,
            "ref": self._ref.pointer,
            "mask": self._mask.pointer,
            **{name: buffer.pointer for name, buffer in self._noises.items()},
            "coeffs": self._table.pointer,
            "x_next": self._x[1 - now].pointer,
        }


def make_device_noise(gpu: Gpu, where: str) -> tuple[DeviceNoise | None, str]:
    """The noise kernels, or None and why the noise comes from the host.

    Args:
        gpu: to compile for.
        where: ``device``, ``host``, or ``auto``: on the device where the kernels can be compiled.

    Raises:
        ConfigError: another word.
        ProviderError: they cannot be compiled, and ``device`` was asked for.
    """
    if where not in ("auto", "device", "host"):
        raise ConfigError(f"noise {where!r}: expected 'auto', 'device' or 'host'", code="E-engine-option")
    if where == "host":
        return None, "asked for"
    try:
        return DeviceNoise(gpu), ""
    except ProviderError as error:
        if where == "device":
            raise
        return None, str(error)


def image_shape_of(shape: Sequence[int | str]) -> tuple[int, int, int]:
    """``(C, H, W)`` of a step graph's input ``x``."""
    channels, height, width = (int(n) for n in shape[1:])
    return channels, height, width


def _read_only(array: NDArray[np.float32]) -> Float32:
    view: Float32 = array.view()
    view.flags.writeable = False
    return view
