"""The sections of the check in the order of their value, for when the time ends early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from .context import Context


@dataclass(frozen=True)
class Section:
    """One section, run in a process of its own.

    Attributes:
        name: of the section, for ``--only``.
        title: for the report.
        function: ``module:function`` of this package, called with a `Context` and ``argument`` if there is one.
        minutes: that it takes on a fast GPU, roughly; it may use what is left.
        needs: Python modules without which nothing of it can run.
    """

    name: str
    title: str
    function: str
    minutes: float
    needs: tuple[str, ...] = ()
    argument: str | None = None

    def __call__(self, context: Context) -> None:
        module, _, name = self.function.partition(":")
        run: Callable[..., None] = getattr(import_module(f".{module}", __package__), name)
        run(context, *([] if self.argument is None else [self.argument]))


_EXPORT = ("torch", "onnx", "onnxscript")

SECTIONS = (
    Section("noise", "Noise on the device is the noise of the definition", "checks:noise", 0.5),
    Section("parity", "Recorded vectors and purifications of the digits bundle", "checks:parity", 2, _EXPORT),
    Section("decisions", "Decisions are those of the CPU", "checks:decisions", 1, _EXPORT),
    Section("graphs", "CUDA graphs change nothing but the time", "checks:graphs", 1, _EXPORT),
    Section("inflight", "Images in flight do not disturb each other", "checks:inflight", 1, _EXPORT),
    Section("peak", "Measured peaks of this GPU", "peak:peak", 0.5, ("torch",)),
    Section("ddpm", "Speed: CIFAR-10 DDPM", "speed:speed", 4, _EXPORT, "ddpm"),
    Section("ddpmpp", "Speed: CIFAR-10 DDPM++ deep", "speed:speed", 6, _EXPORT, "ddpmpp"),
    Section("goldens", "Trajectories of the authors' implementations, replayed", "checks:goldens", 3, _EXPORT),
    Section("copies", "What crosses the bus in the loop", "checks:copies", 0.5, ("torch",)),
    Section("memory", "Memory stays flat", "checks:memory", 2, ()),
    Section("adm256", "Speed: ImageNet 256x256", "speed:speed", 9, _EXPORT, "adm256"),
    Section("tests", "The repository's tests that need a GPU", "checks:tests", 3, ("pytest",)),
)
BY_NAME = {section.name: section for section in SECTIONS}
