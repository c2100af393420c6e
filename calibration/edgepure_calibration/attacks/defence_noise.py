"""What noise a defence draws from one call to the next: an attack's success depends on it as on nothing else."""

from __future__ import annotations

import secrets
from typing import Literal

from edgepure.errors import ConfigError
from edgepure.rows.noise import NoiseSource, RowNoise, SecretNoise, SeededNoise
from edgepure.rows.plan import Plan
from edgepure.types import Float32

#: ``fresh``: new noise in every call, as `edgepure.load` draws it. ``fixed``: the same noise for every image and call.
PolicyName = Literal["fresh", "fixed"]


class NoisePolicy:
    """Gives every call of a defence its noise.

    ====================  ==============================================================================
    ``fresh``, no seed    a new secret key for every call: what is deployed by default
    ``fresh``, a seed     new noise in every call, but the same sequence when the program runs again
    ``fixed``, no seed    one secret key for the life of the process
    ``fixed``, a seed     one known key
    ====================  ==============================================================================

    Fixed noise is that of a service which answers each image in a request of its own with one key: it does not depend
    on the place of an image in a batch, so all images and calls meet the same noise. It is a weak defence, and here
    to be measured.

    Args:
        name: see above.
        seed: ``fresh``: 0 .. 2^32 - 1; ``fixed``: 0 .. 2^64 - 1.

    Raises:
        ConfigError: another name, or a seed out of range.
    """

    def __init__(self, name: PolicyName = "fresh", seed: int | None = None) -> None:
        if name not in ("fresh", "fixed"):
            raise ConfigError(f"noise policy {name!r} is unknown; choose 'fresh' or 'fixed'", code="E-noise-policy")
        bits = 32 if name == "fresh" else 64
        if seed is not None and not 0 <= seed < 2**bits:
            raise ConfigError(
                f"the seed of {name} noise must lie in 0 .. 2^{bits} - 1, got {seed}", code="E-noise-policy-seed"
            )
        self.name, self.seed = name, seed
        self._calls = 0
        self._fixed = OneRequest(SeededNoise(secrets.randbits(64) if seed is None else seed))

    def next(self) -> NoiseSource:
        """The noise of the next call."""
        if self.name == "fixed":
            return self._fixed
        self._calls += 1
        return SecretNoise() if self.seed is None else SeededNoise((self.seed << 32) + self._calls % 2**32)

    @property
    def next_call(self) -> int:
        """How many calls there have been; a policy with a seed goes on there."""
        return self._calls

    @next_call.setter
    def next_call(self, calls: int) -> None:
        self._calls = calls

    def __repr__(self) -> str:
        return f"{self.name}, " + ("a secret seed" if self.seed is None else f"seed {self.seed}")


class OneRequest:
    """A noise source as a server sees it that answers one image per request and starts its stream anew each time:
    whatever the image, it gets the noise of image 0. ``vote``: the noise of this vote, whichever is asked for."""

    def __init__(self, source: NoiseSource, vote: int | None = None) -> None:
        self._source, self._vote = source, vote

    @property
    def seed(self) -> int | None:
        return self._source.seed

    def for_image(
        self, plan: Plan, image: int, vote: int, mask: Float32 | None, shape: tuple[int, ...], *, probe: bool = False
    ) -> RowNoise:
        chosen = vote if probe or self._vote is None else self._vote
        return self._source.for_image(plan, 0, chosen, mask, shape, probe=probe)
