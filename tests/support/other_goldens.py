"""Goldens of the same format with other seeds, sizes, step counts and names, computed by `oracles` in float64.

They prove that the golden tests read everything from the files. Sections that are not made anew are linked.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from golden_data import numpy_epsilon
from numpy.typing import NDArray
from oracles import Oracle

Array = NDArray[Any]

BETAS = np.linspace(1e-4, 0.02, 1000)
BATCH = 2
#: The tiny networks exist for a few image sizes only.
NETS = {
    (8, "eps"): "G7_gnsp/tiny_eps.onnx",
    (12, "eps"): "G2_dhni_trajectory/tiny_eps_12x12.onnx",
    (16, "eps"): "G2_dhni_trajectory/tiny_eps_16x16.onnx",
    (8, "learned"): "G4_repaint_schedule/tiny_eps_learnsigma.onnx",
    (12, "learned"): "G5_gdmp_guidance/tiny_eps_learnsigma_12x12.onnx",
}


class _Stage:
    """One trajectory being made: image, noises in the order of drawing, network inputs."""

    def __init__(self, source: Path, size: int, kind: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.size = size
        self.x = np.asarray(self.rng.integers(-128, 129, self.shape) / 128.0, dtype=np.float32)
        self.noise: list[Array] = []
        self.calls: list[tuple[Array, float]] = []
        self.net = source / NETS[size, kind]
        self._network = numpy_epsilon(self.net)
        self.oracle = Oracle(BETAS, self._call, self._draw)

    @property
    def shape(self) -> tuple[int, ...]:
        return (BATCH, 3, self.size, self.size)

    def normal(self) -> Array:
        return np.asarray(np.round(self.rng.standard_normal(self.shape) * 128) / 128, dtype=np.float32)

    def _draw(self, source: str) -> Array:
        self.noise.append(self.normal())
        return self.noise[-1].astype(np.float64)

    def _call(self, x: Array, t: Array) -> Array:
        self.calls.append((x, float(t[0])))
        return self._network(x, t)

    @property
    def labels(self) -> Array:
        return np.float32([t for _, t in self.calls])

    @property
    def ref(self) -> Array:
        return self.x.astype(np.float64)

    def states(self) -> Array:
        return np.float32(self.oracle.states)


def make(source: Path, target: Path) -> Path:
    """Write the folder ``target`` from the one in ``source``; returns it."""
    target.mkdir()
    for entry in source.iterdir():
        (target / entry.name).symlink_to(entry.resolve())
    for folder, maker in (("G2_dhni_trajectory", _dhni), ("G3_diffpure_uniform", _uniform), ("G7_gnsp", _gnsp)):
        own = target / folder
        own.unlink()
        own.mkdir()
        for extra in ("meta.json", "schedule.npz"):
            if (source / folder / extra).exists():
                shutil.copy(source / folder / extra, own)
        maker(source, own)
    return target


def _dhni(source: Path, folder: Path) -> None:
    for name, size, l, s, ddim_steps, U in (("X", 12, 0.29, 0.15, 20, 5), ("Y_long", 16, 0.37, 0.113, 40, 1)):  # noqa: E741
        stage = _Stage(source, size, "eps", seed=len(name))
        mask = stage.rng.integers(0, 2, (BATCH, 1, size, size)).astype(np.float32)
        stride = 1000 // ddim_steps
        grid = [i for i in range(0, 999, stride)][: int(ddim_steps * l) + 1][::-1]
        x = stage.oracle.heterogeneous_official(stage.ref, mask.astype(np.float64), grid, s * 1000, U)
        names = ["initial"]
        for i, (t, after) in enumerate(itertools.pairwise(grid)):
            if after >= s * 1000:
                names.append(f"step{i}_known_t{t}")
                names += [f"step{i}_rediffuse{j}_to_t{t + j}" for j in range(1, U + 1)]
        first = np.sqrt(stage.oracle.abar(grid[0])) * stage.ref
        first = first + np.sqrt(1 - stage.oracle.abar(grid[0])) * stage.noise[0]
        np.savez(
            folder / f"dhni_cfg{name}.npz",
            x=stage.x,
            mask=mask,
            timesteps=np.int64(grid),
            noise=np.stack(stage.noise),
            noise_names=np.array(names),
            x_after=np.concatenate([np.float32(first)[None], stage.states()]),
            unet_t=np.repeat(stage.labels[:, None], BATCH, 1),
            final=np.float32(x),
            strength_l=np.float64(l),
            x_clf=np.clip(np.float32(x) / 2 + 0.5, 0, 1),
            strength_s=np.float64(s),
            ddim_steps=ddim_steps,
            U=U,
        )
        shutil.copy(stage.net, folder / f"tiny_eps_{size}x{size}.onnx")


def _uniform(source: Path, folder: Path) -> None:
    size = 12
    shutil.copy(source / NETS[size, "eps"], folder / "tiny_eps.onnx")
    shutil.copy(source / NETS[size, "learned"], folder / "tiny_eps_learnsigma.onnx")

    def save(name: str, stage: _Stage, x: Array, **more: Any) -> None:
        np.savez(
            folder / f"{name}.npz",
            x=stage.x,
            x_init=np.float32(stage.calls[0][0]),
            unet_t=stage.labels,
            final=np.float32(x),
            **more,
        )

    for eta, clip in ((0.0, True), (0.7, False)):
        stage, grid = _Stage(source, size, "learned", seed=30 + clip), [3, 10, 31, 64, 65, 120]
        x = stage.oracle.uniform(stage.ref, grid[::-1], sampler="ddim", eta=eta, clip=clip)
        levels = [stage.oracle.abar(t) for t in grid]
        betas = 1 - np.array(levels) / np.array([1.0, *levels[:-1]])
        noise = np.stack([*stage.noise, stage.normal()] if eta else stage.noise)
        save(
            f"ddim6_eta{eta:g}_{'clip' if clip else 'noclip'}",
            stage,
            x,
            steps_ascending=np.int64(grid),
            noise=noise,
            x_after=stage.states(),
            eta=eta,
            clip=int(clip),
            spaced_betas=betas,
        )
    for name, kind, variance, t_star in (
        ("ddpm_fixedsmall_noclip", "eps", "fixed_small", 23),
        ("ddpm_guided_learnsigma", "learned", "learned", 31),
    ):
        stage, grid = _Stage(source, size, kind, seed=t_star), list(range(t_star))
        learned = variance == "learned"
        x = stage.oracle.uniform(stage.ref, grid[::-1], sampler="ddpm", eta=0.0, clip=learned, variance=variance)
        kept = [0, 5, t_star - 1]
        noise = np.stack(stage.noise if learned else [*stage.noise, stage.normal()])
        save(name, stage, x, t_star=t_star, noise=noise, kept_steps=kept, x_after=stage.states()[kept])
    for name, kind, t_star in (("vpsde_guided_diffusion", "learned", 75), ("vpsde_score_sde", "eps", 42)):
        stage = _Stage(source, size, kind, seed=t_star)
        x = stage.oracle.vp_sde(stage.ref, t_star, 1e-3, kind == "learned")
        kept = [0, 4, 20]
        before = np.float32([stage.calls[k][0] for k in kept])
        save(
            name,
            stage,
            x,
            t_star=t_star,
            noise_init=stage.noise[0],
            dw_unit=np.stack(stage.noise[1:]),
            kept_steps=kept,
            x_before=before,
        )


def _gnsp(source: Path, folder: Path) -> None:
    size, levels, counts = 16, [7, 40, 13], [3, 6, 13]
    shutil.copy(source / NETS[size, "eps"], folder / "tiny_eps.onnx")
    for method in ("ddpm", "ddim"):
        stage = _Stage(source, size, "eps", seed=len(method) + 7)
        eta = 1.0 if method == "ddpm" else 0.0
        x = stage.oracle.gnsp(stage.ref, list(zip(levels, counts, strict=True)), eta=eta, clip=False)
        names, noise, drawn = [], [], iter(stage.noise)
        starts, ends, row = [], [], 0
        for r, (level, count) in enumerate(zip(levels, counts, strict=True)):
            ascending = [k - 1 for k in range(level // count, level + 1, level // count)]
            names.append(f"round{r}_initial_index{level - 1}")
            noise.append(next(drawn))
            for s, t in enumerate(ascending[::-1]):
                names.append(f"round{r}_step{s}_t{t}")  # the official code draws one in every step
                noise.append(next(drawn) if eta and t != ascending[0] else stage.normal())
            starts.append(np.float32(stage.calls[row][0]))
            row += len(ascending)
            ends.append(np.float32(stage.oracle.states[row - 1]))
        np.savez(
            folder / f"gnsp_{method}.npz",
            x01=(stage.x + 1) / 2,
            noise=np.stack(noise),
            noise_names=np.array(names),
            unet_t=stage.labels,
            x_noised_per_round=np.stack(starts),
            x_after_round=np.stack(ends),
            x_clf=np.float32(x / 2 + 0.5),
            max_timesteps=",".join(map(str, levels)),
            num_denoising_steps=",".join(map(str, counts)),
            method=method,
        )
