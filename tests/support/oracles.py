"""Second opinion: every purification method in float64 NumPy, straight from its equations.

Imports nothing of edgepure. Images are ``[B, C, H, W]`` in [-1, 1], masks ``[B, 1, H, W]`` (1 inside). ``eps(x, t)`` is
the network, ``draw(source)`` gives the next standard normal of a source (initial, known, jump, step, target, probe);
a noise whose factor is zero is not drawn. ``Oracle.states`` keeps the state after every denoising step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Network = Callable[[Array, Array], Array]
Draw = Callable[[str], Array]


class Oracle:
    """The methods for one schedule, network and stream of noises. Timestep -1 is the clean image."""

    def __init__(self, betas: Array, network: Network, draw: Draw) -> None:
        self.network, self.draw = network, draw
        self.bars = [float(a) for a in np.cumprod(1.0 - np.asarray(betas, dtype=np.float64))]
        self.states: list[Array] = []

    def abar(self, t: int) -> float:
        return 1.0 if t == -1 else self.bars[t]

    def q(self, image: Array, t: int, source: str) -> Array:
        """The image noised to timestep t in closed form."""
        return math.sqrt(self.abar(t)) * image + math.sqrt(1.0 - self.abar(t)) * self.draw(source)

    def up(self, x: Array, t: int, t_up: int, source: str = "jump") -> Array:
        """Forward diffusion from level t to the higher level t_up."""
        keep = self.abar(t_up) / self.abar(t)
        return math.sqrt(keep) * x + math.sqrt(1.0 - keep) * self.draw(source)

    def call(self, x: Array, label: float) -> tuple[Array, Array]:
        """Epsilon and, for a learned-variance network, its other half (else empty)."""
        channels = x.shape[1]
        output = self.network(x, np.full(len(x), float(label)))
        return output[:, :channels], output[:, channels:]

    def ddim(self, x: Array, t: int, t_next: int, eta: float = 0.0, clip: bool = False) -> Array:
        """One DDIM step; with clipping the direction is derived again from the clipped image estimate."""
        a, b = self.abar(t), self.abar(t_next)
        e, _ = self.call(x, t)
        x0 = (x - math.sqrt(1.0 - a) * e) / math.sqrt(a)
        if clip:
            x0 = np.clip(x0, -1.0, 1.0)
            e = (x - math.sqrt(a) * x0) / math.sqrt(1.0 - a)
        std = eta * math.sqrt((1.0 - b) / (1.0 - a) * (1.0 - a / b))
        result = math.sqrt(b) * x0 + math.sqrt(max(1.0 - b - std * std, 0.0)) * e
        return self._stepped(result + std * self.draw("step") if std > 0.0 else result)

    def ancestral(
        self, x: Array, a: float, b: float, label: int, *, variance: str, clip: bool, floor: float, pull: Any = None
    ) -> Array:
        """One ancestral (DDPM) step from alpha_bar a to b; ``pull(V)`` is a guidance term, given the variance."""
        e, v = self.call(x, label)
        x0 = (x - math.sqrt(1.0 - a) * e) / math.sqrt(a)
        x0 = np.clip(x0, -1.0, 1.0) if clip else x0
        beta, last = 1.0 - a / b, b == 1.0
        small = beta * (1.0 - b) / (1.0 - a)
        mean = beta * math.sqrt(b) / (1.0 - a) * x0 + (1.0 - b) * math.sqrt(1.0 - beta) / (1.0 - a) * x
        V: Any
        if variance == "learned":
            share = (v + 1.0) / 2.0
            V = np.exp(share * math.log(beta) + (1.0 - share) * (math.log(floor) if last else math.log(small)))
        else:
            V = floor if last else {"fixed_small": small, "fixed_large": beta}[variance]
        z = self.draw("step") if not last or variance == "learned" else 0.0
        x = mean if pull is None else mean + pull(V)
        return self._stepped(x if last else x + np.sqrt(V) * z)

    # -- methods -------------------------------------------------------------------------------------------------

    def uniform(
        self, ref: Array, grid: Sequence[int], *, sampler: str, eta: float, clip: bool, variance: str = "fixed_small"
    ) -> Array:
        """DiffPure along a descending grid."""
        x = self.q(ref, grid[0], "initial")
        floor = self._first_variance(list(grid)[::-1])
        for t, t_next in zip(grid, [*grid[1:], -1], strict=True):
            if sampler == "ddim":
                x = self.ddim(x, t, t_next, eta, clip)
            else:
                x = self.ancestral(x, self.abar(t), self.abar(t_next), t, variance=variance, clip=clip, floor=floor)
        return x

    def vp_sde(self, ref: Array, t_star: int, step: float, discrete_label: bool) -> Array:
        """DiffPure's reverse VP-SDE by Euler-Maruyama; the time is added up in float32."""
        T = len(self.bars)
        x = self.q(ref, t_star - 1, "initial")
        u, end = np.float32(1.0 - t_star / T), np.float32(1.0 - 1e-5)
        while u < end:
            after = min(u + np.float32(step), end)
            s, h = float(np.float32(1.0) - u), float(after) - float(u)
            beta = 0.1 + 19.9 * s
            abar = math.exp(-9.95 * s * s - 0.1 * s)
            label = int(np.float32(1000.0) * (np.float32(1.0) - u)) if discrete_label else 999.0 * s
            score = -self.call(x, label)[0] / math.sqrt(1.0 - abar)
            x = self._stepped(x + h * (0.5 * beta * x + beta * score) + math.sqrt(beta * h) * self.draw("step"))
            u = after
        return x

    def heterogeneous(
        self,
        ref: Array,
        M: Array,
        stage1: Sequence[int],
        stage2: Sequence[int],
        *,
        resample: str,
        U: int,
        eta: float,
        clip: bool,
    ) -> Array:
        """The paper: inpainting above t_s = stage2[0] with the outside re-injected, then ordinary denoising."""

        def known(x: Array, t: int) -> Array:
            return M * x + (1.0 - M) * self.q(ref, t, "known")

        x = self.q(ref, stage1[0], "initial")
        for t, t_next in zip(stage1, [*stage1[1:], stage2[0]], strict=True):
            x = known(x, t)
            if resample == "single" and U > 0:
                x = known(self.ddim(self.up(x, t, t + U), t + U, t, eta, clip), t)
            x = self.ddim(x, t, t_next, eta, clip)
            if resample == "multi":
                for _ in range(U):
                    x = self.ddim(known(self.up(x, t_next, t), t), t, t_next, eta, clip)
        x = known(x, stage2[0])
        for t, t_next in zip(stage2, [*stage2[1:], -1], strict=True):
            x = self.ddim(x, t, t_next, eta, clip)
        return x

    def heterogeneous_official(self, ref: Array, M: Array, grid: Sequence[int], t_s: float, U: int) -> Array:
        """The authors' loop: U Markov steps up, then DDIM straight down to the next timestep; ends at index 0."""
        x = self.q(ref, grid[0], "initial")
        for t, t_next in itertools.pairwise(grid):
            if t_next >= t_s:
                x = M * x + (1.0 - M) * self.q(ref, t, "known")
                for _ in range(U):
                    x, t = self.up(x, t, t + 1), t + 1
            x = self.ddim(x, t, t_next)
        return x

    def repaint(
        self, ref: Array, M: Array, kept: Sequence[int], walk: Sequence[int], *, variance: str, clip: bool
    ) -> Array:
        """RePaint on the respaced process ``kept`` (ascending); ``walk`` is its list of respaced indices."""

        def abar(k: int) -> float:
            return 1.0 if k == -1 else self.abar(kept[k])

        def noised(k: int, source: str) -> Array:
            return math.sqrt(abar(k)) * ref + math.sqrt(1.0 - abar(k)) * self.draw(source)

        floor = self._first_variance(kept)
        x, first = noised(walk[0], "initial"), True
        for k, k_next in itertools.pairwise(walk):
            if k_next > k:
                keep = abar(k + 1) / abar(k)
                x = math.sqrt(keep) * x + math.sqrt(1.0 - keep) * self.draw("jump")
                continue
            if not first:
                x = M * x + (1.0 - M) * noised(k, "known")
            first = False
            x = self.ancestral(x, abar(k), abar(k - 1), kept[k], variance=variance, clip=clip, floor=floor)
        return x

    def gdmp(
        self,
        ref: Array,
        kept: Sequence[int],
        K: int,
        rounds: int,
        *,
        start: int,
        target: str,
        ptb: float,
        guide_scale: float,
        elements: int,
        variance: str,
        clip: bool,
        guided: bool = True,
    ) -> Array:
        """GDMP with MSE guidance on the process ``kept`` (ascending): K steps a round, noised to index ``start``."""
        y, floor = ref, self._first_variance(kept)
        for _ in range(rounds):
            x = self.q(y, kept[start], "initial")
            for k in range(K - 1, -1, -1):
                a, b = self.abar(kept[k]), self.abar(kept[k - 1]) if k > 0 else 1.0
                pull = None
                if guided:
                    goal = self.q(ref, kept[k], "target") if target == "noised" else ref
                    scale = math.sqrt(1.0 - a) / ((2.0 * ptb / 255.0) / 3.0 / guide_scale * math.sqrt(a))
                    gradient = -2.0 * (x - goal) / elements * scale
                    pull = lambda V, g=gradient: V * g  # noqa: E731
                x = self.ancestral(x, a, b, kept[k], variance=variance, clip=clip, floor=floor, pull=pull)
            y = x
        return y

    def gnsp(self, ref: Array, rounds: Sequence[tuple[int, int]], *, eta: float, clip: bool) -> Array:
        """Lee & Kim: (noise level, steps) for every round; the list may be longer than steps."""
        x = ref
        for level, steps in rounds:
            x = self.q(x, level - 1, "initial")
            stride = level // steps
            ascending = [k - 1 for k in range(stride, level + 1, stride)]
            for t, t_next in zip(ascending[::-1], [*ascending[:-1][::-1], -1], strict=True):
                x = self.ddim(x, t, t_next, eta, clip)
        return x

    def eps(self, ref: Array, levels: Sequence[float], *, perturb: bool, continuous_label: bool = True) -> Array:
        """Expected perturbation score: the mean of the score vectors at s = level / T of the VP-SDE."""
        total = np.zeros(ref.shape)
        T = len(self.bars)
        for level in levels:
            s = level / T
            log_mean = -0.25 * s * s * 19.9 - 0.5 * s * 0.1
            std = math.sqrt(1.0 - math.exp(2.0 * log_mean))
            x = math.exp(log_mean) * ref + std * self.draw("probe") if perturb else ref
            total -= self.call(x, 999.0 * s if continuous_label else level - 1.0)[0] / std
        return total / len(levels)

    def _stepped(self, x: Array) -> Array:
        self.states.append(x)
        return x

    def _first_variance(self, ascending: Sequence[int]) -> float:
        """The posterior variance is 0 at the first index; its clipped logarithm is that of the second."""
        if len(ascending) < 2:
            return 1e-20
        low, high = self.abar(ascending[0]), self.abar(ascending[1])
        return (1.0 - high / low) * (1.0 - low) / (1.0 - high)


def repaint_walk(t_T: int, n_sample: int, jump_length: int, jump_n_sample: int) -> list[int]:
    """RePaint's walk: down one at a time; at every multiple of the jump length, go up again a few times."""
    repeats = {j: jump_n_sample - 1 for j in range(0, t_T - jump_length, jump_length)}
    walk, t = [], t_T
    while t > 0:
        t -= 1
        walk.append(t)
        if t + 1 < t_T - 1:
            walk.extend([t + 1, t] * (n_sample - 1))
        if repeats.get(t, 0) > 0:
            repeats[t] -= 1
            walk.extend(range(t + 1, t + jump_length + 1))
            t += jump_length
    return [*walk, -1]


def ssni_linear(norm: float, xi_min: float, xi_max: float, t_star: float, b: float) -> float:
    """SSNI-L of the paper."""
    return (norm - xi_min) / (xi_max - xi_min) * t_star + b


def ssni_sigmoid(norm: float, mu: float, tau: float, t_star: float, b: float) -> float:
    """SSNI-N of the paper."""
    return (t_star + b) / (1.0 + math.exp(-(norm - mu) / tau))
