"""`python -m benchmarks [--out out/bench.json] [--quick]`: the whole speed table in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

import numpy as np

import edgepure
from edgepure.machine.packages import package_version
from edgepure.machine.processor import cpu_name

from . import inflight, loop_cost

#: The heterogeneous method as its authors publish it for 32 x 32 images: 100 UNet calls.
DIGITS_PRESET = {
    "method": {"method": "heterogeneous", "variant": "official", "t_l": 200, "t_s": 100, "ddim_steps": 500, "U": 3},
    "mask": {"area": 0.3},
}
#: A call of the digits UNet is so short that it matters where its buffers lie, which differs from load to load: so
#: the bundle is loaded so many times, and the median is taken.
LOADS = 9


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    import onnxruntime
    import torch

    return {
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "openvino": package_version("openvino"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"))
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="where the exported networks are kept")
    parser.add_argument("--quick", action="store_true", help="few repeats: to see that it runs, not to be quoted")
    options = parser.parse_args()
    repeats = 2 if options.quick else 7

    from . import ddpm_unet, versus_pytorch

    info = machine()
    print(f"{info['cpu']}, {info['cores']} cores, torch {info['torch']}, onnxruntime {info['onnxruntime']}", flush=True)
    results: dict[str, object] = {}
    details: dict[str, object] = {"machine": info, "repeats": repeats}

    def note(name: str, detail: dict[str, object], **values: float) -> None:
        details[name] = detail
        results.update(values)
        print("  ".join(f"{key} {value:.3f}" for key, value in values.items()), flush=True)

    images = np.load(edgepure.demo_bundle().parent / "digits_images.npz")["clean"]
    costs = []
    for _ in range(LOADS):
        with edgepure.load(edgepure.demo_bundle()) as digits:
            costs.append(loop_cost.measure(digits, DIGITS_PRESET, images[0], repeats=2 * repeats))
    costs.sort(key=lambda cost: float(cost["loop_cost"]))  # type: ignore[arg-type]
    cost = {**costs[LOADS // 2], "every_load": [cost["loop_cost"] for cost in costs]}
    note("loop_cost_digits", cost, loop_cost_digits=cost["loop_cost"])  # type: ignore[arg-type]
    with edgepure.load(edgepure.demo_bundle()) as digits:
        stream = np.resize(images, (256, *images.shape[1:]))
        flight = inflight.measure(digits, stream, repeats)
        note(
            "inflight",
            flight,
            inflight_vs_padded=flight["inflight_vs_padded"],  # type: ignore[arg-type]
            inflight_vs_equal=flight["inflight_vs_equal"],
        )  # type: ignore[arg-type]
    path, unet = ddpm_unet.build(options.work / "ddpm")
    with edgepure.load(path) as ddpm:
        cost = loop_cost.measure(ddpm, "heterogeneous", np.full(ddpm.image_shape, 0.5, np.float32), 5 * repeats)
        note("loop_cost_ddpm", cost, loop_cost_ddpm=cost["loop_cost"])  # type: ignore[arg-type]
        for batch in (1, 8):
            # Seven rounds scatter by 5 % from run to run.
            peer = versus_pytorch.measure(ddpm, unet, batch, (3 if batch == 1 else 2) * repeats)
            note(
                f"versus_pytorch_b{batch}",
                peer,
                **{f"vs_eager_b{batch}": peer["vs_eager"], f"vs_channels_last_b{batch}": peer["vs_channels_last"]},
            )  # type: ignore[arg-type]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.out.with_suffix(".tmp")
    temporary.write_text(json.dumps({**results, "details": details}, indent=1) + "\n")
    temporary.replace(options.out)
    text = table(results, details)
    options.out.with_suffix(".md").write_text(text + "\n")
    print(text)
    print(f"written to {options.out}")


#: What each ratio has to reach, and what it compares.
GOALS = {
    "loop_cost_ddpm": ("<=", 1.03, "purification / (rows x bare UNet call), CIFAR-10 DDPM UNet, batch 1"),
    "loop_cost_digits": ("<=", 1.10, "the same, digits UNet"),
    "vs_eager_b1": (">=", 1.6, "PyTorch loop, default layout / edgepure, batch 1"),
    "vs_channels_last_b1": (">=", 1.4, "PyTorch loop, channels_last / edgepure, batch 1"),
    "vs_eager_b8": (">=", 1.1, "PyTorch loop, default layout / edgepure, batch 8"),
    "vs_channels_last_b8": (">=", 1.1, "PyTorch loop, channels_last / edgepure, batch 8"),
    "inflight_vs_padded": (">=", 1.6, "throughput of in-flight batching / padding each batch to its longest plan"),
    "inflight_vs_equal": (">=", 0.9, "throughput of mixed plan lengths / equal ones"),
}


def table(results: dict[str, object], details: dict[str, object]) -> str:
    """The table as Markdown, medians of ratios."""
    machine = details["machine"]
    assert isinstance(machine, dict)
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    lines = [f"Medians of ratios within a round, everything side by side in one run. {about}.", ""]
    lines += ["| measure | median | goal | what |", "|---|---|---|---|"]
    for name, (sign, goal, what) in GOALS.items():
        value = float(results[name])  # type: ignore[arg-type]
        lines.append(f"| {name} | {value:.3f} | {sign} {goal} | {what} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
