"""``edgepure doctor``: what this machine can run bundles on, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .options import DebugOption, JsonOption

if TYPE_CHECKING:
    from ..doctor import Environment, ProviderStatus
    from ..machine.nvidia import Driver


def doctor(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show what this machine can run bundles on. Every engine is tried, not only looked up.

    Exit code 5 if no engine works.

    Examples:

    \b
      edgepure doctor
      edgepure doctor --json > machine.json
    """
    from ..doctor import doctor as look
    from ..errors import ProviderError
    from .output import emit_json, note, say, size, table
    from .progress import Progress

    with Progress("looking around"):
        found = look()
    if as_json:
        emit_json(found.to_dict())
    else:
        available = f", {size(found.memory_available)} free" if found.memory_available is not None else ""
        facts = [
            ("edgepure", found.edgepure),
            ("python", f"{found.python} on {found.system}"),
            ("numpy", found.numpy),
            ("onnxruntime", found.onnxruntime or "not installed"),
            ("cpu", f"{found.cpu}, {found.cores} cores usable"),
            ("cpu features", " ".join(found.features) or "unknown"),
            ("memory", f"{size(found.memory_total)}{available}" if found.memory_total is not None else "unknown"),
            ("nvidia driver", _driver(found.driver)),
            *(
                ("gpu", f"{gpu.name}, compute capability {gpu.compute_capability}, {size(gpu.memory)}")
                for gpu in found.driver.gpus
            ),
            ("jetson", str(found.jetson) if found.jetson is not None else "no"),
            *((("power mode", found.jetson.power_mode or "unknown"),) if found.jetson is not None else ()),
            ("torch", _torch(found)),
            ("demo bundle", found.demo_bundle or "missing: install edgepure from a wheel"),
        ]
        table(("what", "found"), facts)
        say("")
        table(
            ("provider", "state", "detail"),
            (_row(part) for part in (*found.providers, *found.parts)),
        )
        for line in found.advice():
            say(f"\n{line}")
    if not found:
        note("error: no inference engine works on this machine; install one with `pip install edgepure[cpu]`")
        raise typer.Exit(ProviderError.exit_code)


def _torch(found: Environment) -> str:
    if found.torch:
        return "installed"
    if found.jetson is not None:
        return "not installed; only export needs it, on a workstation"
    return "not installed; only export needs it: pip install edgepure[export]"


def _driver(driver: Driver) -> str:
    version = driver.version or "version unknown"
    if driver.cuda is None:
        return driver.fault
    return f"{version}, up to CUDA {driver.cuda}{'; ' if driver.fault else ''}{driver.fault}"


def _row(part: ProviderStatus) -> tuple[str, str, str]:
    state = "works" if part.works else "builds" if part.builds else "no"
    what = " ".join(word for word in (part.engine, part.version) if word)
    return part.name, state, ": ".join(word for word in (what, part.detail) if word)
