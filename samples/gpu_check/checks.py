"""Does every engine of this machine compute what it should? One function for each section of the check."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.engines.base import Stepper
from edgepure.methods import UniformSpec
from edgepure.parity.verify import verify
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise
from edgepure.rows.schedule import NoiseSchedule

from .context import CannotRunError, Context
from .engines import EngineName, engine_names, opened, stepper_in_a_way

ROOT = Path(__file__).resolve().parents[2]
#: Precisions of the digits bundle that are checked.
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
#: Share of the decisions that must be those of the fp32 graphs on the CPU.
AGREEMENT = {"fp32": 0.99, "fp16": 0.97, "bf16": 0.95, "int8": 0.90}
#: Largest difference of an image that shares its calls with others to the same image alone: engines choose other
#: kernels for other batches.
TOGETHER = {"fp32": 1e-4, "fp16": 2e-2}


def tests(context: Context) -> None:
    """The tests of the repository that need a GPU."""

    def run() -> Mapping[str, Any]:
        if context.device != "cuda":
            raise CannotRunError("they need a GPU")
        # only the files that have one: the others may need packages that are of no use here
        chosen = [str(file) for file in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.gpu" in file.read_text()]
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--continue-on-collection-errors", "-m", "gpu"]
        command = [sys.executable, "-m", "pytest", *options, *chosen]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(30.0, context.left()))
        print(done.stdout[-4000:], done.stderr[-2000:], flush=True)
        if "No module named pytest" in done.stderr:
            raise CannotRunError("pytest is not installed")
        lines = done.stdout.strip().splitlines()
        said = lines[-1] if lines else f"exit code {done.returncode}"
        if " passed" not in said and " failed" not in said:  # all skipped, or their modules lack something
            raise CannotRunError(f"pytest ran none of them: {said}")
        broken = " error" in said and "ModuleNotFoundError" not in done.stdout
        return {"ok": " failed" not in said and not broken, "pytest": said}

    context.run("pytest -m gpu", run, needs=30)


def noise(context: Context) -> None:
    """The stream of counters on the device against its definition in NumPy: integers bit for bit, normals to 1e-6."""

    def run() -> Mapping[str, Any]:
        from .device_stream import compare

        return compare(context.device)

    context.run("noise on the device", run)


def parity(context: Context) -> None:
    """Recorded vectors of every graph, and recorded purifications, of the digits bundle."""
    bundle = digits(context)
    for name in _names(context, bundle, PRECISIONS):
        context.run(str(name), partial(_verified, bundle, name), needs=15)


def _verified(bundle: Path, name: EngineName) -> Mapping[str, Any]:
    with opened(bundle, name):
        pass  # engines are built
    found = verify(bundle, name.provider, precision=name.precision)
    worst = max(found.checks, key=lambda check: check.max_error / check.tolerance if check.tolerance else 0.0)
    return {
        "ok": bool(found),
        "comparisons": len(found.checks),
        "worst": f"{worst.quantity} of {worst.subject}",
        "worst_error": worst.max_error,
        "worst_tolerance": worst.tolerance,
        "said": str(found),
    }


def decisions(context: Context) -> None:
    """Labels of clean and attacked digits with the same seeded noise, against the fp32 graphs on the CPU."""
    bundle = digits(context)
    count = 16 if context.quick else 64
    with np.load(edgepure.demo_bundle().parent / "digits_images.npz") as data:
        images = np.concatenate([data["clean"][:count], data["adversarial"][:count]])
    with edgepure.load(edgepure.demo_bundle()) as purifier:
        presets = [purifier.bundle.manifest.default_preset] if context.quick else sorted(purifier.presets)
        wanted = {preset: purifier.run(images, preset, noise=11) for preset in presets}
    for name in _names(context, bundle, PRECISIONS):

        def run(name: EngineName = name) -> Mapping[str, Any]:
            with opened(bundle, name) as engine:
                agreement, worst = 1.0, 0.0
                for preset, expected in wanted.items():
                    found = engine.run(images, preset, noise=11)
                    same = [a.label == b.label for a, b in zip(found, expected, strict=True)]
                    agreement = min(agreement, float(np.mean(same)))
                    worst = max(
                        worst, *(float(np.abs(a.image - b.image).max()) for a, b in zip(found, expected, strict=True))
                    )
            return {
                "ok": agreement >= AGREEMENT[name.precision],
                "agreement": agreement,
                "largest_image_difference": worst,
                "decisions": len(images) * len(wanted),
                "presets": list(wanted),
            }

        context.run(str(name), run, needs=20)


def goldens(context: Context) -> None:
    """The recorded trajectories of the authors' implementations, replayed through the fused step graph in fp32."""
    sys.path.append(str(ROOT / "tests"))
    try:
        from .golden_runs import cases, run_case
    except ImportError as error:
        context.cannot("goldens", f"{error}")
        return
    chosen = cases(few=context.quick)
    for name in engine_names(context.device, ("fp32",)):
        for title, case in chosen:
            context.run(f"{name}, {title}", partial(run_case, case, name, context), needs=20)


def inflight(context: Context) -> None:
    """Images with plans of different length in flight, against each of them alone."""
    bundle = digits(context)
    lengths = [5, 12, 3, 9, 20, 4, 7, 15, 6, 11, 8] if not context.quick else [3, 6, 2]
    for name in _names(context, bundle, ("fp32", "fp16")):

        def run(name: EngineName = name) -> Mapping[str, Any]:
            with opened(bundle, name) as engine:
                stepper = engine.stepper("step")
                together = _purified(stepper, engine.schedule, lengths, range(len(lengths)))
                worst = 0.0
                for image in range(len(lengths)):
                    alone = _purified(stepper, engine.schedule, lengths, [image])
                    worst = max(worst, float(np.abs(together[image] - alone[image]).max()))
            return {"ok": worst <= TOGETHER[name.precision], "largest_difference": worst, "images": len(lengths)}

        context.run(str(name), run, needs=15)


def graphs(context: Context) -> None:
    """CUDA graphs and noise on the device change how a row is executed, and not what comes out."""
    bundle = digits(context)
    names = [n for n in _names(context, bundle, ("fp32", "fp16")) if n.provider != "cpu"]
    if not names:
        context.cannot("CUDA graphs", "they need a GPU")
    # Images leave one after another: graphs of every number of images, and the first ones again after the others.
    lengths, images = [20, 14, 20, 9], range(4)
    for name in names:

        def run(name: EngineName = name) -> Mapping[str, Any]:
            found: dict[str, Any] = {}
            ms, seen = {}, {}
            with opened(bundle, name) as purifier:
                for way in ("graphs", "no_graphs", "host_noise"):
                    with stepper_in_a_way(purifier, name, way) as stepper:
                        _purified(stepper, purifier.schedule, lengths, images)
                        start = perf_counter()
                        found[way] = _purified(stepper, purifier.schedule, lengths, images)
                        ms[way] = 1e3 * (perf_counter() - start) / max(lengths)
                        if way == "graphs" and name.provider != "cuda":  # ONNX Runtime does not tell
                            seen = {"captured": stepper.captured, "not_captured": stepper.not_captured}
            plain, host = (
                max(float(np.abs(found["graphs"][i] - found[way][i]).max()) for i in images)
                for way in ("no_graphs", "host_noise")
            )
            # ONNX Runtime has another session without graphs, which may choose other kernels
            exact = TOGETHER[name.precision] if name.provider == "cuda" else 1e-6
            return {
                "ok": seen.get("captured", 1) > 0 and plain <= exact and host <= TOGETHER[name.precision],
                **seen,
                "difference_without_graphs": plain,
                "difference_with_noise_of_the_host": host,
                **{f"ms_a_row_{way}": value for way, value in ms.items()},
            }

        context.run(str(name), run, needs=20)


def _purified(
    stepper: Stepper, schedule: NoiseSchedule, lengths: Sequence[int], images: Iterable[int]
) -> dict[int, np.ndarray[Any, Any]]:
    """Purified digits by number, all in flight together; image i has a plan of ``lengths[i]`` rows."""
    with np.load(edgepure.demo_bundle().parent / "digits_images.npz") as data:
        refs = 2.0 * data["clean"] - 1.0
    source, found, jobs = SeededNoise(5), {}, []
    for image in images:
        n = lengths[image]
        spec = UniformSpec(t_star=10 * n, steps=n, sampler="ddim", eta=1.0)
        plan = spec.compile(schedule, refs[0].size)
        jobs.append(Job(plan, source.for_image(plan, image, 0, None, stepper.image_shape), refs[image], tag=image))

    def done(job: Job, x: np.ndarray[Any, Any]) -> None:
        found[job.tag] = x

    InFlight(stepper).run(jobs, done)
    return found


def copies(context: Context) -> None:
    """What crosses the bus during a purification, counted by CUPTI through PyTorch's profiler."""
    bundle = digits(context)
    for name in engine_names(context.device, ("fp32",)):

        def run(name: EngineName = name) -> Mapping[str, Any]:
            from .transfers import count

            with opened(bundle, name) as engine:
                return count(engine, context.device)

        context.run(str(name), run, needs=20)


def memory(context: Context) -> None:
    """2000 purifications, after which as much memory is in use as after the first hundred."""
    from .flat_memory import watch

    bundle = digits(context)
    number = 100 if context.quick else 2000
    for name in engine_names(context.device, ("fp32",)):

        def run(name: EngineName = name) -> Mapping[str, Any]:
            with opened(bundle, name) as engine:
                return watch(engine, context.device, number)

        context.run(str(name), run, needs=30)


def _names(context: Context, bundle: Path, precisions: Sequence[str]) -> list[EngineName]:
    """Every engine in the precisions that the bundle has; `digits` has noted the ones that could not be made."""
    variants = Bundle.open(bundle, verify=False).manifest.variants
    return engine_names(context.device, [p for p in precisions if p == "fp32" or p in variants])


def digits(context: Context) -> Path:
    """A copy of the digits bundle that has the other precisions as far as they can be made here."""
    path = context.work / "digits"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(edgepure.demo_bundle(), path)
    makers: dict[str, Callable[[], None]] = {}
    if context.device != "cpu":
        from .variants import add_half, add_int8

        makers = {
            "fp16": lambda: add_half(path, "fp16", context.work),
            "bf16": lambda: add_half(path, "bf16", context.work),
            "int8": lambda: add_int8(path, context.work),
        }
    for precision, make in makers.items():
        try:
            make()
        except Exception as error:  # the others are checked all the same
            context.cannot(f"a {precision} variant of the digits bundle", f"{type(error).__name__}: {error}")
    return path
