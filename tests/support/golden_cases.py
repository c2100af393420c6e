"""The golden trajectories G2 to G7 as cases: each file becomes plans, recorded noise and expectations.

Nothing here knows a size, a seed or a step count: all of it is read from the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from golden_data import Recorded, by_source, load, meta, to_model_range
from golden_trace import Case, Expect, Trace
from ssni_official import official_plan

from edgepure.methods import EpsSpec, GdmpSpec, GnspSpec, RepaintSpec, UniformSpec
from edgepure.methods.heterogeneous import official_rows
from edgepure.rows import grids
from edgepure.rows.plan import Plan
from edgepure.rows.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()
T = len(SCHEDULE)
#: Labels that the official code computes in float32.
LABEL_ATOL = 1e-4


def _sequence(noise: Any, first_levels: list[float | None] | None = None) -> list[tuple[float | None, Any]]:
    levels = first_levels or [None] * len(noise)
    return list(zip(levels, noise, strict=True))


def _calls(case_t: Any, batch: int) -> list[Expect]:
    """Expected network labels ``[steps]`` or ``[steps, B]``, compared exactly up to float32."""
    return [
        Expect("t", row, np.broadcast_to(np.asarray(t, dtype=np.float64), (batch,)), atol=LABEL_ATOL)
        for row, t in enumerate(case_t)
    ]


def dhni(path: Path) -> Case:
    """G2: the authors' heterogeneous loop. The strengths stay the real numbers of the file."""
    d = load(path)
    batch, _, height, width = d["x"].shape
    U, steps = int(d["U"]), int(d["ddim_steps"])
    grid = grids.strided(T, steps, float(d["strength_l"]))
    assert grid == d["timesteps"].tolist()
    plan = official_rows(SCHEDULE, grid, float(d["strength_s"]) * T, U=U)

    def find(name: str) -> tuple[str, float | None]:
        if name == "initial":
            return "initial", float(grid[0])
        kind, level = re.fullmatch(r"step\d+_(known|rediffuse)\d*(?:_to)?_t(\d+)", name).groups()  # type: ignore[union-attr]
        return {"known": "known", "rediffuse": "jump"}[kind], float(level)

    expect = _calls(d["unet_t"], batch)
    if "unet_x" in d:
        expect += [Expect("z", row, z) for row, z in enumerate(d["unet_x"])]
    expect += [Expect("x", row, x) for row, x in enumerate(d["x_after"][1:])]
    expect += [Expect("final", -1, d["final"])]

    def trace_check(trace: Trace) -> None:
        # entry 0 of x_after is the initial diffusion; the network sees it inside the mask unless a jump comes first
        if not any(draw.source == "jump" for draw in plan.rows[0].draws):
            assert np.abs((trace.z[0] - d["x_after"][0]) * d["mask"]).max() < 2e-5  # type: ignore[index]
        assert np.abs(np.clip(trace.final / 2 + 0.5, 0, 1) - d["x_clf"]).max() < 2e-5
        assert len(plan.rows) == len(grid) - 1, "the authors' resampling costs no extra call"

    noises = by_source(d["noise_names"], d["noise"], find)
    return Case(
        path.stem,
        path.with_name(f"tiny_eps_{height}x{width}.onnx"),
        [plan] * batch,
        d["x"],
        Recorded(noises),
        expect,
        masks=np.asarray(d["mask"], dtype=np.float32),
        trace_check=trace_check,
    )


def ddim(path: Path) -> Case:
    """G3: guided-diffusion's DDIM on an explicit list of timesteps."""
    d = load(path)
    grid = d["steps_ascending"][::-1].tolist()
    spec = UniformSpec(
        t_star=max(grid) + 1, timesteps=tuple(grid), sampler="ddim", eta=float(d["eta"]), clip=bool(d["clip"])
    )
    plan = spec.compile(SCHEDULE, d["x"][0].size)
    batch = len(d["x"])
    noises = {"initial": _sequence(d["noise"][:1], [float(grid[0])])}
    if float(d["eta"]) > 0.0:  # the last step adds no noise, though one is drawn
        noises["step"] = _sequence(d["noise"][1 : len(grid)], [float(t) for t in grid[:-1]])
    expect = [*_calls(d["unet_t"], batch), Expect("z", 0, d["x_init"])]
    expect += [Expect("x", row, x) for row, x in enumerate(d["x_after"])] + [Expect("final", -1, d["final"])]
    net = path.with_name("tiny_eps_learnsigma.onnx")  # its epsilon channels only
    return Case(path.stem, net, [plan] * batch, d["x"], Recorded(noises), expect)


def _ddpm(path: Path, net: str, **spec: Any) -> Case:
    d = load(path)
    t_star, batch = int(d["t_star"]), len(d["x"])
    plan = UniformSpec(t_star=t_star, **spec).compile(SCHEDULE, d["x"][0].size)
    levels: list[float | None] = [float(t) for t in range(t_star - 1, -1, -1)]
    # a noise is drawn at the last step too; it is multiplied by 0
    last = t_star + 1 if plan.learned_variance else t_star
    noises = {
        "initial": _sequence(d["noise"][:1], levels[:1]),
        "step": _sequence(d["noise"][1:last], levels[: last - 1]),
    }
    recorded = Recorded(noises)
    if plan.learned_variance:
        recorded.used.add(("step", t_star - 1))
    expect = [*_calls(d["unet_t"], batch), Expect("z", 0, d["x_init"]), Expect("final", -1, d["final"])]
    for position, row in enumerate(d["kept_steps"].tolist()):
        expect.append(Expect("x", row, d["x_after"][position]))
        if "pred_x0" in d:
            expect.append(Expect("x0", row, d["pred_x0"][position]))
    return Case(path.stem, path.with_name(net), [plan] * batch, d["x"], recorded, expect)


def ddpm_fixed_small(path: Path) -> Case:
    """G3: DiffPure's CelebA-HQ runner."""
    return _ddpm(path, "tiny_eps.onnx", clip=False, variance="fixed_small")


def ddpm_learned(path: Path) -> Case:
    """G3: DiffPure on guided-diffusion's ancestral sampler with learned variance."""
    return _ddpm(path, "tiny_eps_learnsigma.onnx", clip=True, variance="learned")


def vp_sde(path: Path) -> Case:
    """G3: DiffPure's reverse VP-SDE, labels 999*s (score_sde) or trunc(1000*s) (guided-diffusion)."""
    d = load(path)
    batch = len(d["x"])
    discrete = "guided" in path.stem
    spec = UniformSpec(t_star=int(d["t_star"]), sampler="sde", sde_label="discrete" if discrete else "continuous")
    plan = spec.compile(SCHEDULE, d["x"][0].size)
    assert len(plan.rows) == len(d["unet_t"])
    net = "tiny_eps_learnsigma.onnx" if discrete else "tiny_eps.onnx"
    noises = {"initial": _sequence([d["noise_init"]]), "step": _sequence(d["dw_unit"])}
    expect = [*_calls(d["unet_t"], batch), Expect("z", 0, d["x_init"]), Expect("final", -1, d["final"])]
    for position, row in enumerate(d["kept_steps"].tolist()):
        expect.append(Expect("z", row, d["x_before"][position]))
        if row > 0:
            expect.append(Expect("x", row - 1, d["x_before"][position]))
    return Case(path.stem, path.with_name(net), [plan] * batch, d["x"], Recorded(noises), expect)


def repaint(path: Path, root: Path | None = None) -> Case:
    """G4: RePaint on the respaced process, learned variance. Its ``keep_mask`` is the inverse of our mask."""
    d = load(path)
    params = meta(path.parent.name, root)["trajectory"]["schedule_jump_params"]
    spec = RepaintSpec(respacing=str(int(d["respacing"])), variance="learned", clip=True, **params)
    plan = spec.compile(SCHEDULE, d["gt"][0].size)
    batch, kept = len(d["gt"]), d["timestep_map"].tolist()

    def find(name: str) -> tuple[str, float | None]:
        source = "step" if name.endswith("sample") else "known" if name.endswith("known") else "jump"
        return source, float(kept[int(re.search(r"_t(\d+)", name).group(1))])  # type: ignore[union-attr]

    noises = by_source(d["noise_names"], d["noise"], find)
    noises["initial"] = _sequence([d["start_noise"]])
    recorded = Recorded(noises)
    # drawn, but multiplied by 0, at every step to the clean image
    reverse = [int(t) for kind, t in zip(d["event_kind"], d["event_t"], strict=True) if kind == "reverse"]
    recorded.used.update(("step", i) for i, t in enumerate(reverse) if t == 0)
    mask = 1.0 - d["keep_mask"]
    expect = [*_calls(d["unet_t"], batch), Expect("z", 0, d["x_start"]), Expect("final", -1, d["final"])]
    row = 0
    for event, kind in enumerate(d["event_kind"]):
        if kind == "reverse":
            expect.append(Expect("x", row, d["x_after"][event]))
            row += 1
        elif d["event_kind"][event + 1] == "reverse":  # the network sees the last undo inside the mask
            expect.append(Expect("z", row, d["x_after"][event], where=mask))
    return Case(
        path.stem,
        path.with_name("tiny_eps_learnsigma.onnx"),
        [plan] * batch,
        d["gt"],
        recorded,
        expect,
        masks=np.asarray(mask, dtype=np.float32),
    )


def gdmp_cifar(path: Path) -> Case:
    """G5: GDMP's CIFAR-10 code with MSE guidance or none. N is the element count of the whole batch."""
    d = load(path)
    K, rounds = int(d["purify_step"]), int(d["max_iter"])
    refs = to_model_range(d["x01"])
    guidance = {"MSE": "mse", "NONE": "none"}[str(d["guide_mode"])]
    spec = GdmpSpec(
        purify_steps=K,
        rounds=rounds,
        guidance=guidance,
        guide_scale=float(d["guide_scale"]),
        ptb=float(d["ptb"]),
        elements=refs.size,
    )
    plan = spec.compile(SCHEDULE, refs[0].size)

    def find(name: str) -> tuple[str, float | None] | None:
        if "initial" in name:
            return "initial", float(name.rpartition("index")[2])
        level = int(re.search(r"_t(\d+)_", name).group(1))  # type: ignore[union-attr]
        if name.endswith("guide_target"):
            return "target", float(level)
        return ("step", float(level)) if level > 0 else None  # no noise is added at t = 0

    height, width = refs.shape[2:]
    expect = [*_calls(d["t"], len(refs)), Expect("z", 0, d["unet_x_first"])]
    expect += [Expect("x", row, x) for row, x in enumerate(d["x_after"])]
    return Case(
        path.stem,
        path.with_name(f"tiny_eps_{height}x{width}.onnx"),
        [plan] * len(refs),
        refs,
        Recorded(by_source(d["noise_names"], d["noise"], find)),
        [*expect, Expect("final", -1, d["x_after"][-1])],
    )


def gdmp_imagenet(path: Path) -> Case:
    """G5: GDMP's ImageNet code: the clean input is the target, learned variance, respaced process."""
    d = load(path)
    refs = to_model_range(d["x01"])
    spec = GdmpSpec(
        purify_steps=int(d["purify_step"]),
        rounds=1,
        target="clean",
        guide_scale=float(d["guide_scale"]),
        ptb=float(d["ptb"]),
        elements=refs.size,
        respacing=str(int(d["respacing"])),
        variance="learned",
    )
    plan = spec.compile(SCHEDULE, refs[0].size)
    levels: list[float | None] = [float(d["timestep_map"][k]) for k in d["t_spaced"]]
    noises = {"initial": _sequence(d["noise"][:1], levels[:1]), "step": _sequence(d["noise"][1:], levels)}
    recorded = Recorded(noises)
    recorded.used.add(("step", len(levels) - 1))  # drawn at the last step, multiplied by 0
    height, width = refs.shape[2:]
    expect = [*_calls(d["unet_t"], len(refs)), Expect("final", -1, d["x_after"][-1])]
    for row, (x, x0) in enumerate(zip(d["x_after"], d["pred_x0"], strict=True)):
        expect += [Expect("x", row, x), Expect("x0", row, x0)]
    net = path.with_name(f"tiny_eps_learnsigma_{height}x{width}.onnx")
    return Case(path.stem, net, [plan] * len(refs), refs, recorded, expect)


def eps_score(path: Path) -> Case:
    """G6: the expected perturbation score. Its float32 std loses digits, so the README allows 2e-3."""
    d = load(path)
    refs, probes = to_model_range(d["x01"]), int(d["T"])
    perturb = "z" in d
    plan = EpsSpec(probes=probes, perturb=perturb).compile(SCHEDULE, refs[0].size)
    noises = {"probe": _sequence(d["z"], [float(k) for k in range(1, probes + 1)])} if perturb else {}
    net = path.with_name("tiny_eps_learnsigma.onnx" if "imagenet" in path.stem else "tiny_eps.onnx")
    # without noise nothing averages the error of std(1/1000), 1.2e-4 of |eps| <= 66
    atol = 2e-3 if perturb else 1.3e-4 * float(np.abs(d["eps_vector"]).max())
    expect = [*_calls(d["unet_t"], len(refs)), Expect("final", -1, d["eps_vector"], atol=atol)]
    if "unet_x_first" in d:
        expect.append(Expect("z", 0, d["unet_x_first"]))

    def trace_check(trace: Trace) -> None:
        if "eps_l2" in d:
            norms = np.linalg.norm(trace.final.reshape(len(refs), -1).astype(np.float64), axis=1)
            np.testing.assert_allclose(norms, d["eps_l2"], rtol=1e-4)
        if "per_t_score_l2" in d:
            sigma = np.array([row.sigma for row in plan.rows])[:, None]
            per_t = np.linalg.norm(trace.eps.reshape(probes, len(refs), -1), axis=2) / sigma  # type: ignore[union-attr]
            np.testing.assert_allclose(per_t, d["per_t_score_l2"], rtol=2e-4)

    return Case(path.stem, net, [plan] * len(refs), refs, Recorded(noises), expect, trace_check=trace_check)


class _PerImage(Recorded):
    """SSNI: every image has its own list of timesteps, and a repeated timestep draws a noise with factor 0."""

    def __init__(self, noise: Any, visited: Any) -> None:
        super().__init__({})
        self._noise = noise
        self._adding = [
            [k for k in range(len(visited) - 1) if visited[k, image] != visited[k + 1, image]]
            for image in range(visited.shape[1])
        ]

    def __call__(self, draw: Any, image: int) -> Any:
        position = 0 if draw.source == "initial" else 1 + self._adding[image][draw.index]
        return self._noise[position][image]


def ssni(path: Path) -> Case:
    """G6: SSNI by its authors' code: each image is purified along its own list of timesteps."""
    d = load(path)
    plans: list[Plan] = [
        official_plan(SCHEDULE, int(t), steps=int(d["N"]), reweighting=_reweighting(path), bias=int(d["bias"]))
        for t in d["t_of_x"]
    ]
    refs = to_model_range(d["x01"])
    expect = [*_calls(d["visited_t"], len(refs)), Expect("z", 0, d["noised"]), Expect("image", -1, d["x_clf"])]
    recorded = _PerImage(d["noise"], d["visited_t"])
    return Case(path.stem, path.with_name("tiny_eps.onnx"), plans, refs, recorded, expect)


def _reweighting(path: Path) -> Any:
    return "linear" if "linear" in path.stem else "sigmoid"


def gnsp(path: Path) -> Case:
    """G7: GNSP, every round on the last one's result."""
    d = load(path)
    levels = [int(n) for n in str(d["max_timesteps"]).split(",")]
    counts = [int(n) for n in str(d["num_denoising_steps"]).split(",")]
    spec = GnspSpec(max_timesteps=tuple(levels), num_denoising_steps=tuple(counts), sampler=str(d["method"]))
    refs = to_model_range(d["x01"])
    plan = spec.compile(SCHEDULE, refs[0].size)
    names = [str(n) for n in d["noise_names"]]
    last_of_round = {a for a, b in zip(names, [*names[1:], "initial"], strict=True) if "initial" in b}

    def find(name: str) -> tuple[str, float | None] | None:
        if "initial" in name:
            return "initial", float(name.rpartition("index")[2])
        if name in last_of_round or spec.sampler == "ddim":
            return None  # drawn, but multiplied by 0
        return "step", float(name.rpartition("_t")[2])

    expect = [*_calls(d["unet_t"], len(refs)), Expect("image", -1, d["x_clf"])]
    row = 0
    for number, (level, count) in enumerate(zip(levels, counts, strict=True)):
        expect.append(Expect("z", row, d["x_noised_per_round"][number]))
        row += len(grids.lee_kim(level, count))
        expect.append(Expect("x", row - 1, d["x_after_round"][number]))
    recorded = Recorded(by_source(names, d["noise"], find))
    return Case(path.stem, path.with_name("tiny_eps.onnx"), [plan] * len(refs), refs, recorded, expect)


#: (folder, file pattern, maker) of every golden trajectory. Left out: GDMP's SSIM guidance (refused, see test_g5).
SOURCES: list[tuple[str, str, Callable[[Path], Case]]] = [
    ("G2_dhni_trajectory", "dhni_cfg*.npz", dhni),
    ("G3_diffpure_uniform", "ddim*_eta*_*.npz", ddim),
    ("G3_diffpure_uniform", "ddpm_fixedsmall_*.npz", ddpm_fixed_small),
    ("G3_diffpure_uniform", "ddpm_guided_learnsigma*.npz", ddpm_learned),
    ("G3_diffpure_uniform", "vpsde_*.npz", vp_sde),
    ("G4_repaint_schedule", "repaint_trajectory*.npz", repaint),
    ("G5_gdmp_guidance", "gdmp_cifar_mse*.npz", gdmp_cifar),
    ("G5_gdmp_guidance", "gdmp_cifar_noguide*.npz", gdmp_cifar),
    ("G5_gdmp_guidance", "gdmp_imagenet_mse*.npz", gdmp_imagenet),
    ("G6_eps_score", "eps_*.npz", eps_score),
    ("G6_eps_score", "ssni_*_sigmoid.npz", ssni),
    ("G6_eps_score", "ssni_*_linear.npz", ssni),
    ("G7_gnsp", "gnsp_*.npz", gnsp),
]
